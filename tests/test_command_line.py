"""`python -m stage_lite ...`: what it writes, what it says, and its exit codes."""

import subprocess
import sys
import types

import pytest
import torch
from conftest import make_tiny_model
from songs import own_song

import stage_lite as sl
from stage_lite.__main__ import main


@pytest.fixture
def folder(tmp_path):
    """A saved tiny model."""
    return make_tiny_model(trained_s=0.5).save(tmp_path / "tiny")


@pytest.fixture
def mix(tmp_path):
    generator = torch.Generator().manual_seed(0)
    wav = torch.rand(2, 11025, generator=generator) - 0.5
    return sl.save_audio(tmp_path / "mix.wav", wav, 22050)


def test_generate_writes_the_stem_and_the_mix(folder, mix, tmp_path, capsys):
    out, both = tmp_path / "drums.flac", tmp_path / "both.wav"
    command = ["generate", "--model", folder, "--context", mix, "--description", "drums, rock",
               "--out", out, "--mix-out", both, "--duration", "0.3", "--seed", "1"]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    wav, sample_rate = sl.load_audio(out)
    assert (wav.shape, sample_rate) == ((1, 9600), 32000)
    again = sl.load(folder).generate(*sl.load_audio(mix), "drums, rock", 0.3, seed=1)
    assert torch.allclose(wav, again.wav[0], atol=1 / 32768)
    assert sl.load_audio(both)[0].shape == (1, 9600)
    assert "0.30 s at 32000 Hz" in capsys.readouterr().out


def test_generate_needs_no_context(folder, tmp_path):
    out = tmp_path / "bass.ogg"
    assert (
        main(["generate", "--model", str(folder), "--description", "bass", "--out", str(out)]) == 0
    )
    assert sl.load_audio(out)[0].shape == (1, 16000)


def test_warnings_are_plain_notes(folder, mix, tmp_path):
    words = ["generate", "--model", folder, "--out", tmp_path / "x.wav", "--duration", "0.6"]
    done = subprocess.run(
        [sys.executable, "-m", "stage_lite", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "trained on" in line]
    assert said and said[0].startswith("note: duration_s is 0.6"), done.stderr
    assert "UserWarning" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.mp3"], "ends in '.mp3'; expected .wav, .flac or .ogg"),
        (["--out", "no/such/folder/x.wav"], "there is no folder"),
        (["--out", "x.wav", "--mix-out", "y.wav"], "--mix-out needs --context"),
        (["--out", "x.wav", "--context", "missing.wav"], "missing.wav does not exist"),
        (["--out", "x.wav", "--model", "nanno"], "no model 'nanno'"),
        (["--out", "x.wav", "--duration", "-1"], "duration_s is -1.0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    folder, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    if "--model" not in words:
        words = [*words, "--model", str(folder)]
    assert main(["generate", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_train_learns_saves_and_goes_on(tmp_path, capsys):
    base = make_tiny_model(context_token=False, trained_s=1.0).save(tmp_path / "base")
    for number in range(3):
        own_song(tmp_path / "songs", number)
    command = ["train", "--data", tmp_path / "songs", "--model", base, "--window", 1, "--steps", 2,
               "--batch-size", 2, "--checkpoint-dir", tmp_path / "drums"]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    said = capsys.readouterr().out
    assert "none held out" in said and "2 steps" in said
    model = sl.load(tmp_path / "drums" / "model")
    assert model.config.name == "drums" and model.config.lm.context_token
    command[command.index("--steps") + 1] = 3
    assert main([str(word) for word in command]) == 0
    assert "3 steps" in capsys.readouterr().out
    assert main([str(word) for word in [*command, "--fresh"]]) == 2
    assert "holds a checkpoint" in capsys.readouterr().err


def test_train_holds_songs_out(tmp_path, capsys):
    base = make_tiny_model(trained_s=1.0).save(tmp_path / "base")
    for number, split in enumerate(["train", *["valid"] * 6]):
        own_song(tmp_path / "songs", number, split)
    command = ["train", "--data", tmp_path / "songs", "--model", base, "--window", 1, "--steps", 1,
               "--batch-size", 1, "--checkpoint-dir", tmp_path / "run", "--conditions",
               "metronome"]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    assert "none held out" not in capsys.readouterr().out
    assert "valid_gap" in (tmp_path / "run" / "log.jsonl").read_text()


def test_train_without_songs_says_so(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    command = [
        "train",
        "--data",
        tmp_path / "empty",
        "--model",
        folder,
        "--checkpoint-dir",
        tmp_path / "x",
    ]
    assert main([str(word) for word in command]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_demo_is_called_with_folder_and_seed(monkeypatch, tmp_path):
    calls = []
    demo = types.ModuleType("stage_lite.demo")
    demo.run = lambda **arguments: calls.append(arguments)
    monkeypatch.setitem(sys.modules, "stage_lite.demo", demo)
    monkeypatch.setattr(sl, "demo", demo, raising=False)
    assert main(["demo", "--out", str(tmp_path), "--seed", "7", "--song", "bossa"]) == 0
    chosen = {"out": tmp_path, "seed": 7, "song": "bossa"}
    assert calls == [chosen | {"duration_s": None, "description": None}]


def test_ctrl_c_ends_quietly(monkeypatch, folder, tmp_path, capsys):
    from stage_lite.model import StageModel

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(StageModel, "generate", stop)
    assert main(["generate", "--model", str(folder), "--out", str(tmp_path / "x.wav")]) == 130
    assert capsys.readouterr().err == "stage-lite generate: stopped\n"


def test_evaluate_prints_a_table_and_writes_a_page(folder, tmp_path, capsys):
    for number in range(3):
        own_song(tmp_path / "songs", number)
    words = ["evaluate", "--model", folder, "--data", tmp_path / "songs", "--target", "bass",
             "--window", 2, "--n", 2, "--metrics", "onset_alignment", "--out", tmp_path / "report",
             "--cache", tmp_path / "cache"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "evaluating on all songs" in said and "2 windows of 2 s, 2 songs, seed 0" in said
    assert "onset alignment ↑" in said and "report.html" in said
    assert {f.name for f in (tmp_path / "report").iterdir()} == {
        "report.html", "report.json", "report.png",
    }  # fmt: skip
    words[words.index("--target") + 1] = "banjo"
    assert main([str(word) for word in words]) == 2
    assert "no song with stem 'banjo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["generate", "--help"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["--version"],
    ],
)
def test_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert "stage-lite" in capsys.readouterr().out
