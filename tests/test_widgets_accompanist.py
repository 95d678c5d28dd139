"""Accompanist: the song stem by stem, the job in the background, the zip, the panel on a page."""

import io
import json
import re
import threading
import time
import zipfile
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
import torch
from mount import mount
from stage_widgets import Accompanist
from stage_widgets.accompaniment import MAX_KEPT, MAX_TAKES, Accompaniment
from stage_widgets.decode import decode_audio
from stage_widgets.job import Cancelled, Job
from stage_widgets.midi_tempo import midi_tempo_map
from stage_widgets.song_zip import song_zip

from stage_lite.audio import mix, save_audio
from stage_lite.errors import StageLiteError
from stage_lite.metronome import beat_grid, click_track, read_beats
from stage_lite.midi_beats import midi_beats
from stage_lite.song import open_songs

RATE = 16000
PATIENCE_S = 60


class Player:
    """Stands for a StageModel: quick, and remembers what it was asked."""

    sample_rate = RATE
    config = SimpleNamespace(
        name="player", trained_s=2.0, lm=SimpleNamespace(vocabulary=("drums", "bass", "rock"))
    )

    def __init__(self, n_steps=20):
        self.asked, self.threads, self.n_steps = [], [], n_steps
        self.go_on = threading.Event()
        self.go_on.set()
        self.at_step, self.fault = threading.Event(), None

    def generate(self, *, description, duration_s, seed, progress, **asked):
        self.asked.append(asked | {"description": description, "seed": seed})
        self.threads.append(threading.current_thread())
        for step in range(self.n_steps):
            if step == self.n_steps // 2:
                self.at_step.set()
                assert self.go_on.wait(PATIENCE_S)
                if self.fault:
                    raise self.fault
            progress(step + 1, self.n_steps)
        return SimpleNamespace(wav=tone(seed, duration_s)[None])


def tone(seed, seconds=2.0):
    time_s = torch.arange(round(seconds * RATE)) / RATE
    return 0.4 * torch.sin(2 * torch.pi * (100 + 50 * seed) * time_s)[None]


@pytest.fixture
def player():
    return Player()


@pytest.fixture
def panel(player):
    panel = Accompanist(player)
    yield panel
    player.go_on.set()
    panel.close()


def says(panel, kind, *buffers, **content):
    panel._on_message(panel, {"kind": kind, **content}, list(buffers))


def heard(widget):
    """Custom messages of Python from now on: [(content, buffers)]."""
    messages = []

    def publish(msg_type, data=None, metadata=None, buffers=None, **_):
        if msg_type == "comm_msg" and data and data.get("method") == "custom":
            messages.append((data["content"], [bytes(b) for b in buffers or []]))

    widget.comm.publish_msg = publish
    return messages


def int16(wav):
    return (wav[0].numpy() * 32768).round().clip(-32768, 32767).astype("<i2").tobytes()


def wav_file(wav=None, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, (tone(1) if wav is None else wav)[0].numpy(), rate, format="WAV")
    return buffer.getvalue()


# --- the song, stem by stem --------------------------------------------------------------------


def test_a_take_is_what_the_model_generates(tiny_model):
    context = 0.3 * torch.randn(1, 32000, generator=torch.Generator().manual_seed(0))
    panel = Accompanist(tiny_model, context=context, sample_rate=32000)
    take = panel.generate("drums", "bossa nova", cfg_coef=2.0, seed=5)
    expected = tiny_model.generate(
        context=context.clamp(-1, 1),
        context_sample_rate=32000,
        description="drums, bossa nova",
        duration_s=1.0,
        cfg_coef=2.0,
        seed=5,
    )
    assert torch.equal(take.wav, expected.wav[0])
    panel.keep(take)
    second = panel.generate("bass", seed=1)
    expected = tiny_model.generate(
        context=mix([context.clamp(-1, 1), take.wav]),
        context_sample_rate=32000,
        description="bass",
        duration_s=1.0,
        seed=1,
    )
    assert torch.equal(second.wav, expected.wav[0])
    assert second.heard == ("context", "drums")


def test_each_stem_hears_what_was_kept(panel, player):
    context = tone(7)
    panel.set_context(context, RATE)
    drums, other, bass = (panel.generate(*a) for a in (["drums", "rock"], ["drums"], ["bass"]))
    assert player.asked[0]["description"] == "drums, rock"
    assert [t.id for t in panel.takes] == [1, 2, 3] and panel.kept == []
    for asked in player.asked:
        torch.testing.assert_close(asked["context"], context)
    panel.keep(other)
    panel.keep(bass.id)
    panel.generate("bass", seed=3)
    torch.testing.assert_close(player.asked[-1]["context"], mix([context, other.wav, bass.wav]))
    torch.testing.assert_close(panel.mix(), player.asked[-1]["context"])
    assert list(panel.song.parts()) == ["context", "drums", "bass"]
    panel.put_back(bass)
    panel.delete(drums)
    assert [t.id for t in panel.kept] == [2] and [t.id for t in panel.takes] == [2, 3, 4]
    assert panel._song["kept"] == [2] and [t["id"] for t in panel._song["takes"]] == [2, 3, 4]


def test_a_click_gives_way_to_the_first_stem(panel, player):
    panel.set_click(120, 3)
    drums = panel.generate("drums", seed=2)
    beats, downbeats = beat_grid(120, 3, duration_s=2.0)
    click = click_track(beats, downbeats, duration_s=2.0, sample_rate=RATE)
    torch.testing.assert_close(player.asked[0]["context"], click)
    panel.keep(drums)
    panel.generate("bass")
    torch.testing.assert_close(player.asked[1]["context"], drums.wav)
    assert panel.takes[1].heard == ("drums",)


def test_without_a_context_it_plays_from_words_alone(panel, player):
    take = panel.generate("bass", "rock")
    assert player.asked[0]["context"] is None and player.asked[0]["context_sample_rate"] is None
    assert take.heard == () and panel.mix() is None


def test_another_context_drops_takes_and_spares_what_is_kept(panel):
    panel.set_context(tone(1), RATE)
    panel.keep(panel.generate("drums"))
    with pytest.raises(StageLiteError, match="kept stems: 1, and they belong to context"):
        panel.set_click(120)
    panel.put_back(1)
    key = panel._song["context"]["key"]
    panel.set_context(tone(2), RATE)
    assert panel.takes == [] and panel._song["context"]["key"] != key
    panel.start_over()
    assert panel._song == {"context": None, "takes": [], "kept": []}


def test_a_part_of_a_file_with_its_beats(tmp_path, player):
    wav = torch.cat([tone(1, 3.0), tone(2, 3.0)], dim=1).repeat(2, 1)
    save_audio(tmp_path / "song.flac", wav, RATE)
    beats = np.arange(0, 6, 0.5)
    panel = Accompanist(player, context=tmp_path / "song.flac", beats=beats, downbeats=beats[::4])
    assert panel.song.context.name == "song.flac"
    torch.testing.assert_close(
        panel.song.context.wav, tone(1, 3.0)[:, : 2 * RATE], atol=1e-4, rtol=0
    )
    panel.set_context(tmp_path / "song.flac", start_s=3.25, beats=beats, downbeats=beats[::4])
    np.testing.assert_allclose(panel.song.context.beats, [0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(panel.song.context.downbeats, [0.75])
    with pytest.raises(StageLiteError, match=r"is 6\.00 s long; asked for it from 6\.5 s on"):
        panel.set_context(tmp_path / "song.flac", start_s=6.5)
    # A context that is shorter than a stem ends in silence.
    panel.set_context(tone(4, 0.5), RATE)
    panel.keep(panel.generate("drums"))
    assert panel.mix().shape[-1] == 2 * RATE


def test_how_much_is_remembered():
    song = Accompaniment(RATE, 1.0)
    more = {"words": "", "cfg_coef": 3.0, "seed": 0, "heard": (), "seconds": 0.0}
    for i in range(MAX_TAKES + 5):
        song.add(stem="drums", wav=torch.zeros(1, 8), **more)
        if i < 2:
            song.keep(i + 1)
    ids = [take.id for take in song.takes]
    assert len(ids) == MAX_TAKES and ids[:3] == [1, 2, 8] and ids[-1] == MAX_TAKES + 5
    for id_ in ids[2:MAX_KEPT]:
        song.keep(id_)
    with pytest.raises(StageLiteError, match="8 stems are kept"):
        song.keep(ids[-1])
    song.keep(1)  # is kept already
    with pytest.raises(StageLiteError, match="there is no take 99"):
        song.keep(99)
    assert list(song.parts())[:3] == ["drums", "drums-2", "drums-3"]


# --- the job -----------------------------------------------------------------------------------


def test_generating_leaves_this_thread_free(panel, player):
    player.go_on.clear()
    says(panel, "generate", stem="drums", words="rock", cfg_coef=3, seed=4)
    assert player.at_step.wait(PATIENCE_S) and panel.busy
    assert player.threads[0] is not threading.current_thread()
    assert panel._job["state"] == "generating" and panel.message == ""
    assert 0 < panel._job["done"] < panel._job["total"] == 20
    # The song can be listened to, kept and put back meanwhile; its context stays.
    with pytest.raises(StageLiteError, match="a take is being generated"):
        panel.set_click(100)
    says(panel, "generate", stem="drums", words="", cfg_coef=3, seed=4)
    assert "one at a time" in panel.message
    player.go_on.set()
    take = panel.wait(PATIENCE_S)
    assert take.seed == 4 and not panel.busy and panel._song["takes"][0]["words"] == "rock"
    assert panel._job["text"].startswith("Take 1: drums, rock, ")
    assert panel._form == {"stem": "drums", "words": "rock", "cfg_coef": 3.0, "seed": 4}


def test_cancel_in_the_middle(panel, player):
    player.go_on.clear()
    panel.generate("drums", wait=False)
    assert player.at_step.wait(PATIENCE_S)
    says(panel, "cancel")
    assert panel._job["state"] == "cancelling"
    player.go_on.set()
    assert panel.wait(PATIENCE_S) is None
    assert panel.takes == [] and panel._job["text"] == "Cancelled." and panel.message == ""
    assert panel.generate("bass").stem == "bass", "the next one works"
    says(panel, "cancel")  # nothing to cancel
    assert panel._job["state"] == "idle"


@pytest.mark.filterwarnings("ignore:duration_s is")
def test_cancel_stops_the_model_itself(tiny_model, monkeypatch):
    """The real model's loop, not only what comes after it."""
    generate, steps = tiny_model.generate, []

    def watched(*, progress, **asked):
        def tell(done, total):
            steps.append((done, total))
            progress(done, total)

        return generate(progress=tell, **asked)

    monkeypatch.setattr(tiny_model, "generate", watched)
    panel = Accompanist(tiny_model, duration_s=30.0)
    panel.generate("drums", wait=False)
    until = time.monotonic() + PATIENCE_S
    while len(steps) < 5 and time.monotonic() < until:
        time.sleep(0.002)
    panel.cancel()
    assert panel.wait(PATIENCE_S) is None
    done, total = steps[-1]
    assert 5 <= done < total and total > 1000
    assert panel.takes == [] and not panel.busy and panel._job["text"] == "Cancelled."


@pytest.mark.parametrize("fault", [StageLiteError("got 3; expected 4"), RuntimeError("no memory")])
def test_what_goes_wrong_is_one_sentence(panel, player, fault, caplog):
    player.fault = fault
    says(panel, "generate", stem="drums", words="", cfg_coef=3, seed=0)
    with pytest.raises(type(fault)):
        panel.wait(PATIENCE_S)
    expected = str(fault) if isinstance(fault, StageLiteError) else "RuntimeError: no memory"
    assert panel.message == expected and not panel.busy
    assert ("Traceback" in caplog.text) == (not isinstance(fault, StageLiteError))
    player.fault = None
    says(panel, "generate", stem="drums", words="", cfg_coef=3, seed=0)
    assert panel.wait(PATIENCE_S) is not None and panel.message == ""


def test_closing_while_it_generates(player):
    panel = Accompanist(player)
    player.go_on.clear()
    panel.generate("drums", wait=False)
    assert player.at_step.wait(PATIENCE_S)
    panel.close()
    player.go_on.set()
    assert panel._running.wait(PATIENCE_S) and panel.takes == []
    data, _ = panel._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"}


def test_a_job_tells_progress_and_its_end_once():
    told, ended = [], []
    done = threading.Event()

    def work(report):
        for i in range(1000):
            report(i + 1, 1000)
        return "result"

    job = Job(work, lambda *p: told.append(p), lambda *e: (ended.append(e), done.set()))
    assert done.wait(PATIENCE_S) and job.wait(PATIENCE_S)
    assert ended == [("result", None)] and told[-1] == (1000, 1000)
    assert len(told) < 100, "at most ten a second"
    job.cancel()
    with pytest.raises(Cancelled):
        job.report(1, 2)


# --- what comes in -----------------------------------------------------------------------------


def test_a_part_that_the_browser_has_cut(panel):
    says(panel, "context", int16(tone(3)), name="C:\\music\\<b>my</b>.wav", rate=RATE)
    assert panel.message == ""
    assert panel.song.context.name == "b>.wav" or "/" not in panel.song.context.name
    torch.testing.assert_close(panel.song.context.wav, tone(3), atol=2**-15, rtol=0)
    says(panel, "context", int16(torch.zeros(1, RATE)), name="quiet.wav", rate=RATE)
    assert "quiet.wav is silent here" in panel._job["text"]
    for buffers, content in [
        ([], {"name": "x", "rate": RATE}),
        ([b""], {"name": "x", "rate": RATE}),
        ([int16(tone(1))], {"name": "x", "rate": 3}),
        ([int16(tone(1))], {"name": "x"}),
    ]:
        says(panel, "context", *buffers, **content)
        assert panel.message.startswith("x ") and "expected" in panel.message
        assert panel.song.context.name == "quiet.wav"


def test_files_that_the_browser_cannot_read(panel):
    messages = heard(panel)
    for name, content in [
        ("notes.txt", b"these are words, and no sound\n" * 50),
        ("empty.wav", b""),
        ("cut.wav", wav_file()[:20]),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(200)),
    ]:
        says(panel, "file", content, name=name)
        assert panel.message.startswith(name), panel.message
        assert messages == [] and panel.song.context is None
    says(panel, "file", wav_file(), name="good.wav")
    assert panel.message == ""
    content, (data,) = messages[0]
    assert content == {"kind": "decoded", "name": "good.wav", "rate": RATE}
    assert data == int16(torch.from_numpy(np.frombuffer(data, "<i2") / 32768)[None])
    assert abs(len(data) // 2 - 2 * RATE) <= 1


@pytest.mark.parametrize("form", ["matroska", "mp4", "flac", "aiff", "ogg"])
def test_decoding(form):
    wav = tone(2, 1.0)
    buffer = io.BytesIO()
    if form in ("matroska", "mp4"):
        codec = {"matroska": "libopus", "mp4": "aac"}[form]
        rate = 48000
        with av.open(buffer, "w", format=form) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            samples = np.repeat(wav.numpy(), 3, axis=1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    else:
        rate = RATE
        soundfile.write(buffer, wav[0].numpy(), rate, format=form.upper())
    decoded, found = decode_audio(buffer.getvalue(), f"x.{form}")
    assert found == rate and abs(decoded.shape[-1] / rate - 1.0) < 0.1
    assert float(decoded.abs().max()) == pytest.approx(0.4, abs=0.12)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"stem": "vocals"}, "stem is 'vocals'; expected one of drums, bass"),
        ({"words": "x" * 301}, "301 characters"),
        ({"words": None}, "the words are None"),
        ({"cfg_coef": -1}, "guidance is -1"),
        ({"cfg_coef": float("nan")}, "guidance is nan"),
        ({"cfg_coef": "3"}, "guidance is '3'"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"seed": None}, "seed is None"),
    ],
)
def test_settings_out_of_range(panel, player, form, message):
    says(panel, "generate", **({"stem": "drums", "words": "", "cfg_coef": 3, "seed": 0} | form))
    assert message in panel.message and not panel.busy and player.asked == []


def test_bad_messages(panel):
    says(panel, "click", bpm=0, beats_per_bar=4)
    assert "expected 10 to 1000" in panel.message
    says(panel, "click", bpm="fast", beats_per_bar=4)
    assert "the tempo is 'fast'" in panel.message
    says(panel, "click", bpm=100, beats_per_bar=0)
    assert "beats_per_bar is 0" in panel.message
    says(panel, "take", action="keep", id=12)
    assert "there is no take 12" in panel.message
    says(panel, "take", action="sing", id=1)
    says(panel, "clip_please", key="context 9")
    says(panel, "clip_please", key=9)
    says(panel, "export")
    with pytest.raises(StageLiteError):
        panel.wait(PATIENCE_S)
    assert "there is nothing to export" in panel.message


def test_what_python_refuses(player, tmp_path):
    with pytest.raises(StageLiteError, match="stems are 100 names"):
        Accompanist(player, stems=[f"stem{i}" for i in range(100)])
    for stems in ([], ["drums", "drums"], ["drums, bass"], [3], [""]):
        with pytest.raises(StageLiteError, match="different words"):
            Accompanist(player, stems=stems)
    for stems in (None, 3, ["\udcff"], ["x" * 300], ""):
        with pytest.raises(StageLiteError, match=r"expected .*words|expected a text|rename it"):
            Accompanist(player, stems=stems)
    assert Accompanist(player, stems="drums")._options["stems"] == ["drums"]
    with pytest.raises(StageLiteError, match="beats came without a context"):
        Accompanist(player, beats=[0.0, 0.5])
    for bpm in ("x", None, float("nan"), True, 5):
        with pytest.raises(StageLiteError, match=r"the tempo is .*; expected|expected 10 to 1000"):
            Accompanist(player).set_click(bpm)
    with pytest.raises(StageLiteError, match="model is a int"):
        Accompanist(3)
    with pytest.raises(StageLiteError, match="no model 'mano'"):
        Accompanist("mano")
    with pytest.raises(StageLiteError, match="without a sample rate"):
        Accompanist(player, context=tone(1))
    with pytest.raises(StageLiteError, match="the file tells its own"):
        Accompanist(player, context="x.wav", sample_rate=8000)
    with pytest.raises(StageLiteError, match="does not exist"):
        Accompanist(player, context=tmp_path / "x.wav")
    with pytest.raises(StageLiteError, match="NaN"):
        Accompanist(player, context=tone(1) * float("nan"), sample_rate=RATE)
    with pytest.raises(StageLiteError, match="duration_s is 0"):
        Accompanist(player, duration_s=0)
    panel = Accompanist(player, context=tone(1), sample_rate=RATE)
    with pytest.raises(StageLiteError, match=r"ends in \.zip"):
        panel.export(tmp_path / "x.rar")
    with pytest.raises(StageLiteError, match="path is 3; expected the name of a file"):
        panel.export(3)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageLiteError, match="could not be written .*; expected a place"):
        panel.export(tmp_path / "file" / "song.zip")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "model.generate returned a NoneType; expected a Generation"),
        (
            SimpleNamespace(wav=torch.full((1, 1, RATE), float("nan"))),
            "what the model made has NaN",
        ),
        (SimpleNamespace(wav=torch.zeros(1, 1, 0)), "what the model made has 0 samples"),
    ],
)
def test_a_model_that_makes_no_sound(player, monkeypatch, made, message):
    monkeypatch.setattr(player, "generate", lambda **_: made)
    panel = Accompanist(player)
    with pytest.raises(StageLiteError, match=message):
        panel.generate("drums")
    assert panel.takes == [] and not panel.busy and message in panel.message


# --- the zip -----------------------------------------------------------------------------------


@pytest.fixture
def made(panel):
    panel.set_click(100, 3)
    for stem, seed in (("drums", 1), ("bass", 2), ("drums", 3)):
        panel.keep(panel.generate(stem, "rock", seed=seed))
    return panel


def test_the_zip_is_a_song_of_the_library(made, tmp_path):
    path = made.export(tmp_path / "new" / "song.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "song")
    names = {file.name for file in (tmp_path / "song").iterdir()}
    stems = {"drums.wav", "bass.wav", "drums-2.wav"}
    assert names == stems | {"mix.wav", "click.wav", "beats.txt", "tempo.mid", "song.json"}
    (song,) = open_songs(tmp_path / "song", RATE)
    assert song.stem_names == ["drums", "bass", "drums-2"]
    for take, name in zip(made.kept, song.stem_names, strict=True):
        torch.testing.assert_close(song.stem(name), take.wav, atol=2**-14, rtol=0)
    beats, downbeats = beat_grid(100, 3, duration_s=2.0)
    np.testing.assert_allclose(song.beats, beats, atol=1e-5)
    np.testing.assert_allclose(song.downbeats, downbeats, atol=1e-5)
    assert song.bpm == pytest.approx(100) and song.text("bass") == "bass, rock"
    read = read_beats(tmp_path / "song" / "beats.txt")
    np.testing.assert_allclose(read[0], beats, atol=1e-5)
    np.testing.assert_allclose(read[1], downbeats, atol=1e-5)
    mixed, rate = soundfile.read(tmp_path / "song" / "mix.wav", dtype="float32")
    np.testing.assert_allclose(mixed, made.mix()[0], atol=2**-14)
    assert rate == RATE
    labels = json.loads((tmp_path / "song" / "song.json").read_text())
    assert labels["beats_are"] == "click"
    assert labels["takes"]["drums-2"]["seed"] == 3
    assert labels["takes"]["drums-2"]["heard"] == ["drums", "bass"]
    assert made.export(tmp_path / "again.zip").read_bytes() == path.read_bytes()


def test_names_in_the_zip_are_never_paths(player):
    song = Accompaniment(RATE, 1.0)
    song.set_context(tone(1, 1.0), RATE, "../../<b>etc</b>/passwd", beats=[], downbeats=[])
    more = {"words": "", "cfg_coef": 3.0, "seed": 0, "heard": (), "seconds": 0.0}
    for stem in ("../x", "..\\x", "<script>", "日本"):
        song.keep(song.add(stem=stem, wav=tone(2, 1.0), **more).id)
    with zipfile.ZipFile(io.BytesIO(song_zip(song))) as archive:
        names = archive.namelist()
        labels = json.loads(archive.read("song.json"))
    wavs = [name for name in names if name.endswith(".wav")]
    assert all(re.fullmatch(r"[a-z0-9-]+\.wav", name) for name in wavs) and len(wavs) == 6
    assert "tempo.mid" not in names and labels["beats_are"] == "given" and labels["beats"] == []
    assert set(labels["takes"]) == {"x", "x-", "script", "stem"}


def test_unknown_beats_are_those_of_the_mix(monkeypatch):
    song = Accompaniment(RATE, 2.0)
    song.set_context(tone(1), RATE, "unknown.wav")
    asked = []
    found = np.array([0.1, 0.6, 1.1, 1.6, 1.9])
    monkeypatch.setattr(
        "stage_widgets.accompaniment.track_beats", lambda *a: (asked.append(a), found)[1]
    )
    tempo = song.tempo()
    torch.testing.assert_close(asked[0][0], song.mix())
    assert asked[0][1] == RATE and tempo.source == "tracked"
    assert list(tempo.beats) == list(found) and list(tempo.downbeats) == [0.1, 1.9]
    with zipfile.ZipFile(io.BytesIO(song_zip(song))) as archive:
        assert json.loads(archive.read("song.json"))["beats_are"] == "tracked"
        assert "tempo.mid" in archive.namelist()
    song.set_context(torch.zeros(1, RATE), RATE, "silence.wav")
    assert song.tempo().source == "none" and len(asked) == 2, "silence is not tracked"


@pytest.mark.parametrize(
    ("bpm", "per_bar", "start_s"),
    [(120.0, 4, 0.0), (97.3, 3, 0.36), (61.0, 5, 1.9), (180.0, 4, 0.01), (100, 4, 2.0)],
)
def test_tempo_map_puts_bar_lines_on_downbeats(bpm, per_bar, start_s, tmp_path):
    beats, downbeats = beat_grid(bpm, per_bar, duration_s=20.0, start_s=start_s)
    (tmp_path / "t.mid").write_bytes(midi_tempo_map(beats, downbeats))
    found, bars = midi_beats(tmp_path / "t.mid", beats[-1] + 0.01)
    first = downbeats[0]
    expected = beats[beats >= first - 1e-6]
    np.testing.assert_allclose(
        found[-len(expected) :], expected, atol=0.017 if first < 0.016 else 1e-5
    )
    np.testing.assert_allclose(bars[-len(downbeats) :][1:], downbeats[1:], atol=1e-5)


def test_tempo_map_follows_a_player_and_changing_bars(tmp_path):
    rng = np.random.default_rng(0)
    beats = 0.2 + np.cumsum(rng.uniform(0.3, 0.7, 40))
    downbeats = beats[[1, 5, 9, 12, 15, 20, 25, 29, 33, 37]]
    (tmp_path / "t.mid").write_bytes(midi_tempo_map(beats, downbeats))
    found, bars = midi_beats(tmp_path / "t.mid", beats[-1] + 0.001)
    np.testing.assert_allclose(found[-39:], beats[1:], atol=1e-5)
    np.testing.assert_allclose(bars[-10:], downbeats, atol=1e-5)
    assert midi_tempo_map([1.0]) == midi_tempo_map([])
    with pytest.raises(StageLiteError, match="does not increase"):
        midi_tempo_map([1.0, 0.5])


def test_the_zip_reaches_the_browser_or_says_how_else(made, monkeypatch):
    messages = heard(made)
    says(made, "export")
    made.wait(PATIENCE_S)
    content, (data,) = messages[0]
    assert content == {"kind": "zip", "name": "song.zip"} and data == song_zip(made.song)
    monkeypatch.setattr("stage_widgets.accompanist.LIMIT_BYTES", 1000)
    says(made, "export")
    with pytest.raises(StageLiteError, match=r"accompanist\.export"):
        made.wait(PATIENCE_S)
    assert len(messages) == 1


# --- showing -----------------------------------------------------------------------------------


def test_repr_and_twin(made):
    assert repr(made) == "Accompanist('player', 3 takes, 3 kept)"
    data, _ = made._repr_mimebundle_()
    html = data["text/html"]
    assert html.count("<img ") == 3 and html.count("<audio ") == 1 and len(html) < 50_000
    assert "take 2, kept: bass, rock; guidance 3, seed 2" in html
    made.start_over()
    made.set_context(tone(1), RATE)
    made.song.context = made.song.context.__class__("<img src=x>", tone(1))
    assert "&lt;img src=x&gt;" in made._twin() and "<img src=x>" not in made._twin()


def test_little_is_sent_before_it_is_asked_for(made):
    state = {k: v for k, v in made.get_state().items() if k not in ("_esm", "_css")}
    assert len(json.dumps(state, default=str)) < 5000 and state["_pcm"] == b""
    messages = heard(made)
    says(made, "clip_please", key=2)
    content, (data,) = messages[0]
    assert content == {"kind": "clip", "key": 2, "rate": RATE}
    assert data == int16(made.takes[1].wav)
    says(made, "clip_please", key=made._song["context"]["key"])
    assert len(messages) == 2


# --- on a page ---------------------------------------------------------------------------------

COUNT = (
    "() => { window.made = 0; class C extends AudioContext { constructor(o) { super(o); "
    "window.made++; } } window.AudioContext = C; }"
)


def test_from_a_click_to_a_zip(player, page):
    from browser import PICTURES, axe

    page.evaluate(COUNT)
    panel = Accompanist(player, stems=("drums", "bass", "<i>x</i>"))
    there = mount(page, panel, width=600, dark=True).ready()
    button = lambda name: there.root.get_by_role("button", name=name)  # noqa: E731
    button("Use a click").click()
    there.wait(lambda: panel.song.context)
    there.root.get_by_role("textbox", name="words").fill("rock")
    there.root.get_by_role("textbox", name="words").press("Enter")
    there.wait(lambda: panel.takes and button("Keep take 1 drums").count())
    assert page.evaluate("window.made") == 0, "no AudioContext before something is played"
    button("Keep take 1 drums").click()
    there.wait(lambda: panel.kept)

    # The next one is cancelled in the middle, by key.
    player.go_on.clear()
    there.root.get_by_role("combobox", name="stem").select_option("<i>x</i>")
    button("Generate").click()
    there.wait(lambda: panel._job["done"] > 0 and button("Cancel").is_enabled())
    page.screenshot(path=_picture("accompanist_busy"))
    page.keyboard.press("Escape")
    there.wait(lambda: panel._job["state"] == "cancelling")
    player.go_on.set()
    there.wait(lambda: there.status() == "Cancelled.")
    there.root.focus()
    page.keyboard.press("g")
    there.wait(lambda: len(panel.takes) == 2 and button("Keep take 2 <i>x</i>").count())
    torch.testing.assert_close(player.asked[-1]["context"], panel.kept[0].wav)
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert page.evaluate("window.made") == 1 and button("Pause").count() == 1
    page.keyboard.press("k")
    there.wait(lambda: len(panel.kept) == 2)
    there.sync()
    page.screenshot(path=_picture("accompanist_dark"))
    assert axe(page) == [] and page.locator(".stage-widget i, .stage-widget img").count() == 0
    assert there.root.evaluate("e => e.scrollWidth <= e.clientWidth")
    with page.expect_download() as got:
        button("Save as zip").click()
        there.wait(lambda: there.status() == "song.zip is ready.")
    assert zipfile.ZipFile(got.value.path()).testzip() is None
    button("Start over").click()
    assert len(panel.kept) == 2, "asks first"
    button("Really start over?").click()
    there.wait(lambda: panel.song.context is None)
    assert page.problems == [] and PICTURES.is_dir()
    there.clean()


def test_files_on_a_page(player, page, tmp_path):
    """A long file and its part, a text, one that cannot be a name, no microphone."""
    panel = Accompanist(player)
    there = mount(page, panel, "Uint8Array").ready()
    picker = there.root.locator("input[type=file]")
    rising = torch.linspace(0, 0.9, 5 * RATE)[None]
    name = "<img src=x onerror=alert(1)>.wav"
    picker.set_input_files({"name": name, "mimeType": "audio/wav", "buffer": wav_file(rising)})
    there.wait(lambda: panel.song.context)
    torch.testing.assert_close(panel.song.context.wav, rising[:, : 2 * RATE], atol=2e-4, rtol=0)
    there.wait(lambda: there.root.get_by_text(name).count())
    assert panel.song.context.name == name and page.locator("img").count() == 0
    there.root.get_by_role("slider", name="Where the part that is used begins").fill("3")
    there.wait(lambda: float(panel.song.context.wav[0, 0]) > 0.5)
    torch.testing.assert_close(panel.song.context.wav, rising[:, 3 * RATE :], atol=2e-4, rtol=0)
    page.screenshot(path=_picture("accompanist_file"))

    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words\n" * 99}
    drop = (
        "(e, name) => { const d = new DataTransfer(); d.items.add(new File(['words '.repeat(99)], "
        "name)); for (const t of ['dragover', 'drop']) e.dispatchEvent(new DragEvent(t, "
        "{ bubbles: true, cancelable: true, dataTransfer: d })); }"
    )
    for give in (lambda: picker.set_input_files(text), lambda: there.root.evaluate(drop, "a.txt")):
        there.root.get_by_role("button", name="New seed").click()
        give()
        there.wait(lambda: "could not be read as audio" in there.status())
        assert panel.song.context.name == name
        panel.message = ""
        there.wait(lambda: there.status() == "")
    picker.set_input_files({"name": "e.wav", "mimeType": "audio/wav", "buffer": b""})
    there.wait(lambda: "e.wav is empty" in there.status())
    # A blank page is no secure place, so the browser has no microphone for it.
    there.root.get_by_role("button", name="Record").click()
    there.wait(lambda: "This page may not record" in there.status())
    assert there.root.get_by_role("button", name="Record").is_enabled()
    # With something kept, the context stays.
    panel.keep(panel.generate("drums"))
    there.sync()
    picker.set_input_files({"name": "n.wav", "mimeType": "audio/wav", "buffer": wav_file()})
    there.wait(lambda: "Start over first" in there.status())
    assert panel.song.context.name == name and page.problems == []


def _picture(name):
    from browser import PICTURES

    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES / f"{name}.png"


# --- in JupyterLab -----------------------------------------------------------------------------

CELL = """
import time, torch
from types import SimpleNamespace
from stage_lite.listening_test import ListeningItem
from stage_widgets import Accompanist, ListeningTest

class Model:
    sample_rate, step_s = 16000, 0.0
    config = SimpleNamespace(name="slow", trained_s=2.0)
    def generate(self, *, duration_s, seed, progress, **asked):
        for i in range(50):
            time.sleep(self.step_s)
            progress(i + 1, 50)
        return SimpleNamespace(wav=0.1 * torch.ones(1, 1, round(16000 * duration_s)))

model = Model()
panel = Accompanist(model)
panel
"""
TEST = """
g = torch.Generator().manual_seed(0)
clip = lambda: (0.05 * torch.randn(1, 16000, generator=g), 16000)
items = [ListeningItem("song", {s: clip() for s in ("real", "nano")}, clip())]
test = ListeningTest(items, folder="listening", form="sheets")
test
"""


@pytest.mark.slow
def test_session_in_jupyterlab(lab):
    """Record, generate, cancel, close the tab in the middle; a listening test by keys alone."""
    book = lab.open([CELL, TEST], "accompanist", width=900)
    book.run_all()
    panel, test = book.widget("Accompanist"), book.widget("Listening test")
    panel.get_by_role("button", name="Record").click()
    panel.get_by_role("button", name="Stop (1 s)").click()
    book.wait_for("panel.song.context is not None")
    assert book.python("panel.song.context.name") == "recording"
    assert book.python("0.5 < panel.song.context.wav.shape[1] / 16000 <= 2")
    book.run("model.step_s = 0.1")
    panel.get_by_role("button", name="Generate").click()
    book.wait_for("panel.busy and panel._job['done'] > 2")  # this cell runs in the middle
    panel.get_by_role("button", name="Cancel").click()
    book.wait_for("[panel.busy, len(panel.takes)]", [False, 0])
    book.run("model.step_s = 0.0")
    panel.get_by_role("button", name="Generate").click()
    panel.get_by_role("button", name="Keep take 1 drums").click()
    book.wait_for("len(panel.kept)", 1)
    assert book.axe() == []
    book.screenshot("accompanist_lab", panel)

    # Keys are the widget's, on its sliders too: JupyterLab has arrows and Enter of its own.
    test.focus()
    for key in "123":
        book.page.keyboard.press(key)
        book.page.wait_for_timeout(300)
        book.page.keyboard.press("ArrowRight")
    book.page.keyboard.press("Enter")
    book.wait_for("test.n_left", 0)
    assert book.python("test.answers.iloc[0, 2:5].astype(int).tolist()") == [51, 51, 51]
    book.screenshot("listening_lab", test)

    saved = book.save()
    assert all(len(str(cell["outputs"])) <= 50_000 for cell in saved["cells"])
    assert "widgets" not in saved["metadata"] and book.problems == []
    book.run("model.step_s = 0.05")
    panel.get_by_role("button", name="Generate").click()
    book.wait_for("panel.busy")
    book.page.goto("about:blank")  # the tab is gone
    book.wait_for("[panel.busy, len(panel.takes)]", [False, 2])
