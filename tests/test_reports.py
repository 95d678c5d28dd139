"""The reports of pretraining/: statistics, resuming, and a smoke run of each on tiny models."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model
from songs import own_song

from stage_lite.audio import save_audio
from stage_lite.codec import save_codec
from stage_lite.errors import StageLiteError
from stage_lite.metrics import studio, systems
from stage_lite.metrics.bootstrap import Bootstrap, shown
from stage_lite.metrics.listening_gap import listening_gap
from stage_lite.metrics.same_windows import other_songs, same_windows
from stage_lite.result_store import ResultStore, key_of
from stage_lite.shards import ShardWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import anchors
import report_codec
import report_nano
from markdown_table import table

# --- statistics ----------------------------------------------------------------------------------


def test_interval_holds_the_mean_and_widens_with_songs_that_differ():
    draw = np.random.default_rng(0)
    values = draw.normal(size=200)
    alone = Bootstrap([str(i) for i in range(200)]).mean(values)
    assert alone["value"] == pytest.approx(values.mean())
    assert alone["low"] < alone["value"] < alone["high"]
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.15)
    # 20 songs of 10 equal windows: as little is known as from 20 windows
    songs = np.repeat([f"song{i}" for i in range(20)], 10)
    grouped = Bootstrap(songs).mean(np.repeat(values[:20], 10))
    ratio = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    assert Bootstrap(songs).n_songs == 20 and ratio > 2


def test_functions_of_means_are_paired():
    draw = np.random.default_rng(1)
    base = draw.normal(size=100)
    spread = Bootstrap([str(i) for i in range(100)])
    gap = spread.of(lambda a, b: a - b, base + 0.5, base)
    assert gap == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    holes = base.copy()
    holes[::2] = np.nan
    assert spread.mean(holes)["value"] == pytest.approx(base[1::2].mean())
    nothing = spread.of(lambda a, b: a / b, 0 * base, 0 * base)
    assert all(np.isnan(v) for v in nothing.values())


def test_tables():
    assert shown({"value": 0.714, "low": 0.66, "high": 0.758}) == "0.71 [0.66, 0.76]"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_store_goes_on_where_it_was(tmp_path, capsys):
    store, calls = ResultStore(tmp_path), []

    def twice(numbers):
        calls.append(list(numbers))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [2 * n for n in numbers]

    jobs = {key_of("x", n): n for n in range(6)}
    with pytest.raises(KeyboardInterrupt):
        store.fill("doubled", jobs, twice, 2)
    ResultStore(tmp_path).fill("doubled", jobs, twice, 3)
    assert calls == [[0, 1], [2, 3], [2, 3, 4], [5]]
    assert [store[key] for key in jobs] == [0, 2, 4, 6, 8, 10]
    assert "doubled: 2 of 6 are there" in capsys.readouterr().out


def test_keys_tell_contents_apart():
    a, b = torch.zeros(2, 3), torch.zeros(3, 2)
    assert len({key_of(a), key_of(b), key_of(a.long()), key_of(a + 1), key_of("a"), key_of()}) == 6
    assert key_of(a, {"x": 1, "y": 2}) == key_of(torch.zeros(2, 3), {"y": 2, "x": 1})


# --- codec report --------------------------------------------------------------------------------


def test_si_sdr():
    draw = torch.Generator().manual_seed(0)
    wav, noise = torch.randn(2, 4, 32000, generator=draw)
    assert np.allclose(report_codec.si_sdr(0.3 * wav, wav), 60)
    assert np.allclose(report_codec.si_sdr(wav + 0.1 * noise, wav), 20, atol=0.3)
    assert np.allclose(report_codec.si_sdr(torch.zeros_like(wav), wav), -60)


def test_delay_is_found_and_taken_out():
    draw = np.random.default_rng(0)
    wav = draw.normal(size=32000).astype(np.float32)
    for delay in (0, 1105, -312):
        late = 0.5 * anchors.shifted(wav, delay) + 0.1 * draw.normal(size=32000)
        assert anchors.delay_of(late, wav, 3200) == delay
    assert anchors.delay_of(draw.normal(size=32000), wav, 3200) == 0
    assert anchors.delay_of(np.zeros(32000), wav, 3200) == 0


@pytest.mark.skipif(anchors.missing() is not None, reason=f"no anchors: {anchors.missing()}")
def test_anchors_keep_length_and_time():
    time = np.arange(2 * 32000) / 32000
    chirp = (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)
    for anchor in anchors.ANCHORS:
        decoded, kbit_s = anchors.through(anchor, chirp, 32000)
        assert decoded.shape == chirp.shape and 0.3 < kbit_s < 10
        if "lowest that is taken" not in anchor.name:
            assert abs(anchors.delay_of(decoded, chirp, 3200)) <= 8


def test_codec_report(tmp_path):
    for number in range(2):
        folder = own_song(tmp_path / "corpus", number, split="test")
        noise = torch.randn(1, 6 * 32000, generator=torch.Generator().manual_seed(number))
        beats = (torch.arange(6 * 32000) % 16000 < 800) * 0.3  # two bursts a second
        save_audio(folder / "drums.flac", noise.clamp(-3, 3) / 3 * beats, 32000)
        labels = json.loads((folder / "song.json").read_text())
        labels["stems"]["drums"].pop("sha256")
        (folder / "song.json").write_text(json.dumps(labels))
    model = make_tiny_model()
    save_codec(model.codec, model.config.codec, tmp_path / "codec")
    out = tmp_path / "out" / "codec.json"
    options = ["--n", "3", "--window", "1.5", "--threads", "1", "--no-anchors"]
    paths = ["--codec", tmp_path / "codec", "--corpus", tmp_path / "corpus", "--out", out]
    args = report_codec.arguments([str(word) for word in paths + options])
    result = report_codec.report(args)
    assert json.loads(out.read_text()) == result
    assert [s["name"] for s in result["systems"]] == [
        "nano codec, 4 codebooks", "nano codec, 3 codebooks", "nano codec, 2 codebooks",
        "nano codec, 1 codebook",
    ]  # fmt: skip
    rates = [s["kbit_s"] for s in result["systems"]]
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])  # 16 entries: 4 bits
    assert set(result["n_windows"].values()) == {3} and result["n_songs"] == 2
    assert "onset_f1" in result["systems"][0]["kinds"]["drums"]
    assert all(0 < share <= 1 for share in result["usage"]["in_use"])
    assert (out.parent / result["figure"]["file"]).stat().st_size > 1000
    table_ = report_codec.markdown(result)
    assert "n = 3 windows of 1.5 s" in table_ and "not asked for" in table_


# --- nano report ---------------------------------------------------------------------------------


def shards(folder, n_songs=6, seconds=8):
    draw = torch.Generator().manual_seed(3)
    with ShardWriter(folder, card=TINY_CARD) as writer:
        for number in range(n_songs):
            meta = {
                "id": f"song{number}",
                "split": "test",
                "beats": [
                    round((0.3 + 0.04 * number) * i, 3)
                    for i in range(int(8 / (0.3 + 0.04 * number)))
                ],
                "family": "rock",
            }
            streams = {
                name: torch.randint(0, TINY_CARD, (4, 50 * seconds), generator=draw)
                for name in ("drums", "mix:drums", "click")
            }
            writer.add(meta, streams)
    return folder


def test_windows_are_the_same_for_all_conditions(tmp_path):
    windows = same_windows(
        shards(tmp_path), "drums", ["click", "mixture"], 5, window_s=2.0, seed=1
    )  # fmt: skip
    assert list(windows) == ["click", "mix"]
    for click, mix in zip(*windows.values(), strict=True):
        assert (click.song_id, click.start_s) == (mix.song_id, mix.start_s)
        assert torch.equal(click.target_codes, mix.target_codes)
        assert not torch.equal(click.context_codes, mix.context_codes)
        assert click.condition == "click" and mix.condition == "mix"
        assert np.array_equal(click.beat_times, mix.beat_times)
    again = same_windows(tmp_path, "drums", ["mix"], 3, window_s=2.0, seed=1)["mix"]
    assert [e.start_s for e in again] == [e.start_s for e in windows["mix"][:3]]
    mixes = windows["mix"]
    for one, others in zip(mixes, other_songs(mixes, count=2), strict=True):
        assert len(set(others)) == 2 and all(mixes[i].song_id != one.song_id for i in others)
    with pytest.raises(StageLiteError, match="found 0 windows.*expected 5"):
        same_windows(tmp_path, "drums", ["mix"], 5, window_s=0.6)  # fewer than four beats in each


def test_share_of_the_gap(tmp_path):
    """A perfect listener closes the gap, one that ignores its context does not."""
    examples = same_windows(shards(tmp_path), "drums", ["mix"], 6, window_s=4.0)["mix"]
    real = [{"beats": e.beat_times, "onsets": e.beat_times} for e in examples]
    off = [{"beats": e.beat_times + 0.2, "onsets": e.beat_times + 0.1} for e in examples]
    loss = {name: np.linspace(1, 2, 6) for name in report_nano.LOSSES}
    worse = {name: values + 0.5 for name, values in loss.items()}
    losses = {"none": worse, "mix/right": loss, "mix/shuffled": worse}
    events = {"real": real, "none": off}
    deaf = listening_gap(examples, losses, events | {"mix/right": off, "mix/shuffled": off})
    keen = listening_gap(examples, losses, events | {"mix/right": real, "mix/shuffled": off})
    for metric in report_nano.METRICS:
        own, value = keen["conditions"]["mix"], {}
        for name, scores in {**own, "real": keen["real"], "other": keen["other"]}.items():
            value[name] = scores[metric]["value"]
        share = (value["right"] - value["shuffled"]) / (value["real"] - value["other"])
        assert value["gap_closed"] == pytest.approx(share) and share > 0.6
        assert own["gap_closed"][metric]["low"] <= share <= own["gap_closed"][metric]["high"]
        assert deaf["conditions"]["mix"]["gap_closed"][metric]["value"] == pytest.approx(0)
    assert keen["conditions"]["mix"]["gap"]["loss"]["low"] == pytest.approx(0.5)
    assert keen["real"]["beat_f1"]["value"] == 1


def test_nano_report_and_its_resumption(tmp_path, monkeypatch, capsys):
    make_tiny_model(anchor_frames=100, trained_s=2.0).save(tmp_path / "model")
    shards(tmp_path / "tokens")
    out = tmp_path / "nano.json"
    words = ["--model", tmp_path / "model", "--tokens", tmp_path / "tokens", "--out", out]
    options = ["--n", "4", "--window", "2", "--targets", "drums", "--batch-size", "4",
               "--threads", "1"]  # fmt: skip
    args = report_nano.arguments([str(word) for word in words + options])
    result = report_nano.report(args)
    written = json.loads(out.read_text())
    drums = written["targets"]["drums"]
    assert drums["n"] == 4 and set(drums["conditions"]) == {"click", "mix"}
    for own in drums["conditions"].values():
        assert set(own) == {"right", "shuffled", "gap", "gap_closed", "context"}
        assert set(own["right"]) == {*report_nano.METRICS, *report_nano.LOSSES}
    assert drums["none"]["loss"]["value"] > 0 and written["real_is"] == "decoded codes"
    for figure in written["figures"]:
        assert (tmp_path / figure["file"]).stat().st_size > 1000 and len(figure["alt"]) > 50
    text = report_nano.markdown(result)
    assert "generated, another song's click" in text and "n = 4 windows of 2 s" in text

    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(systems, "generate_codes", never)
    monkeypatch.setattr(studio, "code_losses", never)
    monkeypatch.setattr("stage_lite.metrics.listen.find_onsets", never)
    capsys.readouterr()
    report_nano.report(args)
    assert json.loads(out.read_text()) == written
    assert "generated, drums, click/right: 4 of 4 are there" in capsys.readouterr().out


# --- the learning curve that notebook 04 shows ---------------------------------------------------


def test_learning_curves_are_those_of_the_log():
    root = Path(__file__).parents[1]
    log = (root / "dev" / "LOG.md").read_text()
    report = json.loads((root / "docs" / "reports" / "nano-training.json").read_text())
    keys = ("click", "click_hidden", "mix", "mix_hidden")
    for run in report["runs"]:
        assert run["entry"] in log and {len(run[k]) for k in (*keys, "hours")} == {
            len(run["steps"])
        }
        for i, step in enumerate(run["steps"]):
            begins = [0, *(until for until, _, _ in run["stages"])]
            seconds = sum(
                max(0, min(step, until) - begin) * window_s * n
                for begin, (until, window_s, n) in zip(begins, run["stages"], strict=False)
            )
            assert run["hours"][i] == pytest.approx(seconds / 3600, abs=0.006)
            numbers = [f"{abs(run[k][i]):.3f}" for k in keys]
            if run["name"] == "with an encoder":
                assert "click 0.142 | 0.560 (0.907), mix\n  0.055 | 0.310" in log
                assert numbers == ["0.142", "0.560", "0.055", "0.310"]
                continue
            rows = [line for line in log.splitlines() if f"| {step} |" in line]
            assert any(all(number in row for number in numbers) for row in rows), (run, step)
