"""StemMixer in Python: what it takes, what it refuses, what it says is heard."""

import numpy as np
import pytest
import torch
from stage_widgets import StemMixer

from stage_lite.audio import save_audio
from stage_lite.errors import StageLiteError
from stage_lite.metronome import click_track

RATE = 16000
BEATS = np.arange(0, 2, 0.5)


def noise(seed=0, seconds=2.0, channels=1, level=0.1, rate=RATE):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(channels, int(seconds * rate), generator=generator)


def make(**more):
    stems = {"drums": {"right": noise(0), "shuffled": noise(1)}, "bass": noise(2, channels=2)}
    more = {"beats": BEATS, "downbeats": BEATS[::4]} | more
    return StemMixer(stems, RATE, **more)


def test_what_is_heard_is_the_sum():
    mixer = make()
    drums, bass = mixer._wavs["drums"]["right"], mixer._wavs["bass"]["only"]
    torch.testing.assert_close(mixer.mix(), drums + bass)  # the click is muted at first
    mixer.version = {"drums": "shuffled"}
    mixer.gain_db = {"bass": -6.0}
    torch.testing.assert_close(mixer.mix(), noise(1) + 10 ** (-6 / 20) * bass)
    mixer.mute = []
    click = click_track(BEATS, BEATS[::4], duration_s=2.0, sample_rate=RATE)
    torch.testing.assert_close(
        mixer.mix(), noise(1) + 10 ** (-6 / 20) * bass + 10 ** (-9 / 20) * click
    )
    mixer.solo = ["bass"]
    torch.testing.assert_close(mixer.mix(), 10 ** (-6 / 20) * bass)
    mixer.mute = ["bass"]
    assert not mixer.mix().any()
    mixer.mute, mixer.gain_db = [], {"bass": -60}
    assert not mixer.mix().any(), "the lowest place of a fader is silence"
    assert mixer.levels() == {"drums": 0.0, "bass": 0.0, "click": 0.0}


def test_a_loud_sum_is_turned_down_as_a_whole():
    mixer = StemMixer({"a": 0.8 * torch.ones(1, RATE), "b": 0.8 * torch.ones(1, RATE)}, RATE)
    assert float(mixer.mix().max()) == pytest.approx(1.0)
    assert "turned down by 4.1 dB" in mixer.note


def test_lengths_rates_channels_and_files(tmp_path):
    save_audio(tmp_path / "keys.wav", noise(3), RATE)
    mixer = StemMixer(
        {
            "short": noise(0, 1.0),
            "other rate": (noise(1, 2.0, rate=44100), 44100),
            "quad": noise(2, channels=4),
            "file": tmp_path / "keys.wav",
            "ints": (noise(4)[0] * 32767).to(torch.int16).numpy(),
            "list": noise(5)[0].tolist(),
        },
        RATE,
    )
    assert {w.shape for v in mixer._wavs.values() for w in v.values()} == {(1, 2 * RATE)}
    assert not mixer._wavs["short"]["only"][:, RATE:].any()
    torch.testing.assert_close(mixer._wavs["file"]["only"], noise(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixer._wavs["ints"]["only"], noise(4), atol=1e-4, rtol=0)
    for sentence in (
        "short ends at 1.00 s",
        "other rate: 44100 Hz, played at 16000 Hz",
        "quad: 4 channels",
    ):
        assert sentence in mixer.note
    alone = StemMixer({"a": (noise(rate=44100), 44100), "b": (noise(), RATE)})
    assert alone.sample_rate == 44100


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        ({}, "got 0 stems; expected 1 to 8"),
        ({str(i): noise() for i in range(100)}, "got 100 stems; expected 1 to 8"),
        ([noise()], "expected names with their audio"),
        ({"a": torch.full((1, RATE), float("nan"))}, "stem 'a' has NaN .* sample 0"),
        ({"a": noise(), "b": torch.zeros(1, 0)}, "stem 'b' has 0 samples"),
        ({"a": torch.zeros(0, RATE)}, "0 channels"),
        ({"a": {}}, "stem 'a' has 0 versions"),
        ({"a": {"x": noise(), "y": noise() * float("inf")}}, "version 'y' of stem 'a'"),
        ({"a": noise()[None]}, r"take one item of a batch"),
        ({"a": "no/such/file.wav"}, "no/such/file.wav does not exist"),
        ({"a": None}, "stem 'a'"),
        ({"a": (noise(), 7)}, "sample rate 7"),
        ({3: noise()}, "a stem is named 3"),
        ({" ": noise()}, "a stem is named ' '"),
        ({"a" * 500: noise()}, "a stem is named 'a{79}; expected a text of 1 to 200 letters"),
        ({"a\ud800": noise()}, "which no browser can show; rename it"),
        ({"a": noise(seconds=700)}, "too long for one widget"),
    ],
    ids=str,
)
def test_bad_stems(stems, message, unchecked_types):
    with pytest.raises(StageLiteError, match=message):
        StemMixer(stems, RATE)


def test_a_text_file_as_a_stem(tmp_path):
    (tmp_path / "notes.txt").write_text("no audio\n" * 100)
    with pytest.raises(StageLiteError, match=r"notes\.txt could not be read as audio"):
        StemMixer({"a": tmp_path / "notes.txt"})


def test_a_wav_without_a_rate():
    with pytest.raises(StageLiteError, match="stem 'a' has no sample rate"):
        StemMixer({"a": noise()})


@pytest.mark.parametrize(
    ("beats", "downbeats", "message"),
    [
        ([1, 0.5], None, "beats does not increase"),
        ([0.0, float("nan")], None, "beats"),
        (None, [0.0], "downbeats without beats"),
    ],
)
def test_bad_beats(beats, downbeats, message):
    with pytest.raises(StageLiteError, match=message):
        make(beats=beats, downbeats=downbeats)


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("mute", ["nobody"], "mute names 'nobody'; expected some of"),
        ("solo", ["nobody"], "solo names 'nobody'"),
        ("gain_db", {"drums": 99}, "gain_db of 'drums' is 99; expected -60 to 12"),
        ("gain_db", {"drums": float("nan")}, "expected -60 to 12"),
        ("version", {"drums": "none"}, "version 'none' of stem 'drums'"),
        ("version", {"click": "only"}, "version 'only' of stem 'click'"),
        ("loop_s", (1, 1), "at least 0.1 s between"),
        ("loop_s", (0, 99), "expected 0 to 2.00 s"),
        ("loop_s", "bars", "expected \\(from, to\\) or None"),
        ("gain_db", None, "gain_db is None; expected a dict"),
        ("gain_db", {"drums": True}, "gain_db of 'drums' is True"),
        ("mute", None, "mute is None; expected a list"),
        ("mute", [1], r"mute is \[1\]; expected a list"),
        ("version", 3, "version is 3; expected a dict"),
        ("playing", "yes", "playing is 'yes'; expected a boolean"),
        ("listen_for", 3, "listen_for is 3; expected a text"),
    ],
)
def test_bad_settings_change_nothing(trait, value, message):
    mixer = make()
    before = getattr(mixer, trait)
    with pytest.raises(StageLiteError, match=message):
        setattr(mixer, trait, value)
    assert getattr(mixer, trait) == before


def test_loop_and_seek():
    mixer = make(beats=np.arange(0, 2, 0.25), downbeats=[0.25, 1.0])
    mixer.loop_bars(1, 1)
    assert mixer.loop_s == [0.25, 1.0]
    mixer.loop_bars(1, 2)
    assert mixer.loop_s == [0.25, 2.0]
    for wrong in ((0, 1), (2, 1), (1, 3), ("a", 1), (1.0, 1.0), (None, 1)):
        with pytest.raises(StageLiteError, match="expected bars of 1 to 2"):
            mixer.loop_bars(*wrong)
    with pytest.raises(StageLiteError, match="needs downbeats"):
        make(downbeats=None).loop_bars(1, 1)
    for wrong in (-1, 99, float("nan"), "1", None, True):
        with pytest.raises(StageLiteError, match=r"expected 0 to 2\.00"):
            mixer.seek(wrong)


def test_the_line_for_the_listener_names_what_is_there():
    assert "add the click" in make().listen_for
    assert "click" not in make(beats=None, downbeats=None).listen_for
    assert make(listen_for="the bass").listen_for == "the bass" and make(listen_for="").note == ""
    assert "Listen for" not in make(listen_for="").twin_html()


def test_a_closed_mixer_says_so():
    mixer = make()
    mixer.close()
    with pytest.raises(StageLiteError, match="was closed and its audio is freed"):
        mixer.mix()
    assert repr(mixer).startswith("StemMixer('drums', 'bass'")


def test_names_with_html_and_a_stem_called_click():
    mixer = StemMixer({"<img src=x>": noise(), "click": noise(1)}, RATE, beats=BEATS)
    html = mixer._repr_mimebundle_()[0]["text/html"]
    assert "<img src=x>" not in html and "&lt;img src=x&gt;" in html
    assert mixer.mute == ["click (metronome)"]


def test_repr_and_twin():
    mixer = make()
    assert repr(mixer) == "StemMixer('drums', 'bass', 2.00 s at 16000 Hz)"
    html = mixer.twin_html()
    assert html.count("<img") == 3 and html.count("<audio") == 1
    assert "drums (right)" in html and "drums (shuffled)" in html
    four = StemMixer({str(i): noise(i, 30, rate=32000) for i in range(4)}, 32000)
    assert len(four._repr_mimebundle_()[0]["text/html"]) < 50_000
    assert len(four._pcm) <= 8_000_000 and four._rate == 32000


def test_from_song():
    from stage_lite.song import open_samples

    song = open_samples()[0]
    mixer = StemMixer.from_song(song, start_s=1.0, duration_s=3.0)
    assert mixer.stem_names == song.stem_names and mixer.duration_s == pytest.approx(3.0)
    inside = song.beats[(song.beats >= 1) & (song.beats < 4)] - 1
    np.testing.assert_allclose(mixer._beats, inside)
    name = song.stem_names[0]
    torch.testing.assert_close(mixer._wavs[name]["only"], song.stem(name, 1.0, 3.0))


def test_an_exported_page_shows_the_twin():
    nbconvert = pytest.importorskip("nbconvert", reason="no nbconvert here")
    import nbformat.v4 as v4
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as shown:
        display(make())
    outputs = [v4.new_output("display_data", output.data) for output in shown.outputs]
    book = v4.new_notebook(cells=[v4.new_code_cell("mixer", outputs=outputs)])
    page, _ = nbconvert.HTMLExporter().from_notebook_node(book)
    assert page.count('alt="Waveform of drums (right)') == 1  # the picture, once
    assert "<audio" in page and "Listen for:" in page and "StemMixer(" not in page
