"""The demo writes what it promises, hears what it should, and says clearly what it cannot do."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from songs import heard_stems, own_song

from stage_lite import demo
from stage_lite.audio import load_audio, resample
from stage_lite.clips import Clip
from stage_lite.errors import StageLiteError
from stage_lite.html_page import Code, Frame, Section, Table, page
from stage_lite.song import open_songs

FILES = ["mix.wav", "drums.wav", "mix_drums.wav", "bass.wav", "mix_drums_bass.wav",
         "picture.png", "demo.json", "index.html"]  # fmt: skip


@pytest.fixture
def songs(tmp_path):
    own_song(tmp_path / "songs", 0)
    own_song(tmp_path / "songs", 1)
    own_song(tmp_path / "songs", 2, silent=("keys", "guitar", "other"))
    return open_songs(tmp_path / "songs")


@pytest.fixture
def heard(tiny_model, monkeypatch):
    """What `generate` was asked for, call by call."""
    calls, generate = [], tiny_model.generate

    def record(**arguments):
        calls.append(arguments)
        return generate(**arguments)

    monkeypatch.setattr(tiny_model, "generate", record)
    return calls


def run(tmp_path, model, songs, **options):
    lines = []
    done = demo.run(tmp_path / "out", model=model, songs=songs, say=lines.append, **options)
    return done, "\n".join(lines)


def test_it_writes_the_folder_and_says_where(tmp_path, tiny_model, songs):
    done, said = run(tmp_path, tiny_model, songs)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert sorted(f.name for f in done.files) == sorted(FILES)
    for name in FILES[:5]:
        wav, sample_rate = load_audio(tmp_path / "out" / name)
        assert wav.shape == (1, tiny_model.sample_rate) and sample_rate == tiny_model.sample_rate
    assert str((tmp_path / "out" / "index.html").resolve()) in said
    for step in ("load the model", "generate drums", "generate bass", "write the folder"):
        assert re.search(rf"{step} +\d+\.\d s", said)
        assert step in done.seconds
    facts = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert facts["song"] == "song0" and facts["descriptions"]["drums"] == "drums, bossa nova"
    assert facts["scores"].keys() == {"drums", "bass"}
    assert facts["scores"]["drums"].keys() == {"generated", "real", "another song"}


def test_drums_hear_the_mix_and_bass_hears_the_mix_and_the_drums(
    tmp_path, tiny_model, songs, heard
):
    run(tmp_path, tiny_model, songs, seed=3)
    first, second = heard
    context = resample(first["context"], tiny_model.sample_rate, 8000)
    assert heard_stems(context) == {"keys", "guitar", "other"}
    drums, _ = load_audio(tmp_path / "out" / "drums.wav")
    difference = second["context"] - first["context"]
    assert torch.allclose(difference, drums, atol=1e-3)
    assert [c["description"] for c in heard] == ["drums, bossa nova", "bass, bossa nova"]
    assert [c["seed"] for c in heard] == [3, 3]


def test_the_same_seed_makes_the_same_files(tmp_path, tiny_model, songs):
    wavs = []
    for _ in range(2):
        run(tmp_path, tiny_model, songs, seed=5)
        wavs.append((tmp_path / "out" / "mix_drums_bass.wav").read_bytes())
    assert wavs[0] == wavs[1]


def test_choices(tmp_path, tiny_model, songs, heard):
    options = {"song": "g1", "duration_s": 1.5, "description": "drums, swing, fast"}
    with pytest.warns(UserWarning, match="trained on"):
        done, said = run(tmp_path, tiny_model, songs, **options)
    assert said.startswith("  check the songs") and "song1: 1.5 s" in said
    assert [c["description"] for c in heard] == ["drums, swing, fast", "bass, swing, fast"]
    command = json.loads((done.out / "demo.json").read_text())["command"]
    assert command.endswith("--song g1 --duration 1.5 --description 'drums, swing, fast'")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"song": "samba"}, "no song fits 'samba'; expected one of song0, song1, song2"),
        ({"song": "song"}, "3 songs fit 'song'; expected one of song0"),
        ({"song": "song2"}, "song 'song2' has nothing but drums and bass here"),
        ({"duration_s": 0.0}, r"the duration is 0 s; expected 1 to 6 s"),
        ({"duration_s": -1.0}, r"the duration is -1 s; expected 1 to"),
        ({"duration_s": 60.0}, r"the duration is 60 s; expected 1 to 6 s, what song 'song0' has"),
        ({"duration_s": float("nan")}, r"the duration is nan s"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    tmp_path, tiny_model, songs, options, message
):
    with pytest.raises(StageLiteError, match=message):
        run(tmp_path, tiny_model, songs, **options)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(tmp_path, tiny_model, songs):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StageLiteError, match="is a file; expected a folder"):
        run(tmp_path, tiny_model, songs)
    assert (tmp_path / "out").read_text() == "mine"


def test_no_songs(tmp_path, tiny_model):
    with pytest.raises(StageLiteError, match="there are no songs"):
        run(tmp_path, tiny_model, [])


# --- the page ----------------------------------------------------------------------------------


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = _Reader()
    reader.feed(text)
    assert not reader.open
    return reader.tags


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path, tiny_model, songs):
    run(tmp_path, tiny_model, songs)
    text = (tmp_path / "out" / "index.html").read_text()
    tags = read(text)
    audio = [attrs for tag, attrs in tags if tag == "audio"]
    assert len(audio) == 6 and len({a["aria-label"] for a in audio}) == 6
    assert all("controls" in a and "autoplay" not in a for a in audio)
    (image,) = [attrs for tag, attrs in tags if tag == "img"]
    assert image["alt"].startswith("Waveforms of mix")
    assert ("html", {"lang": "en"}) in tags
    for _, attrs in tags:  # everything is inside
        for name in ("src", "href"):
            assert name not in attrs or attrs[name].startswith("data:")
    bare = re.sub(r"base64,[\w+/=]+", "", text)
    assert "http" not in bare.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in bare
    assert len(text) < 3e6
    assert "Traceback" not in bare and "nan" not in bare


def test_words_are_text_never_html():
    evil = '<script>alert("x")</script>'
    clip = Clip(evil, torch.zeros(1, 8000), 8000, listen_for=evil)
    table = Table(evil, [evil, evil], [[evil, evil]])
    text = page(evil, evil, [Section(evil, [evil, clip, table, Code(evil)])])
    assert len([tag for tag, _ in read(text) if tag == "script"]) == 1
    frame = Frame(text, title='a "page"')._repr_html_()  # a page within a page, as an attribute
    ((tag, attrs),) = read(frame)
    assert tag == "iframe" and attrs["srcdoc"] == text and attrs["title"] == 'a "page"'


def test_a_clip_is_small_and_keeps_time():
    wav = torch.zeros(2, 44100)
    wav[:, 20000:20100] = 0.5
    clip = Clip("click", wav, 44100)
    assert len(clip.mp3()) < 20000 and clip.duration_s == 1.0
    assert repr(clip) == "Clip('click', 1.00 s at 44100 Hz)"
    import io

    import soundfile

    decoded, sample_rate = soundfile.read(io.BytesIO(clip.mp3()))
    assert sample_rate == 44100 and abs(len(decoded) - 44100) < 3000
    assert abs(int(abs(decoded).argmax()) - 20050) < 200


def test_a_table_reads_in_a_terminal():
    table = Table("numbers", ["stem", "value"], [["drums", "0.5"], ["bass", "no onsets"]])
    assert str(table).splitlines() == [
        "numbers", "  stem       value", "  drums        0.5", "  bass   no onsets"
    ]  # fmt: skip
