"""What all widgets share: repr, static twin, bytes, messages, an end."""

import base64
import re
import sys
import threading

import numpy as np
import pytest
import torch
from stage_widgets.base import StageWidget
from stage_widgets.esm import stylesheet
from stage_widgets.pcm import pack

from stage_lite.errors import StageLiteError

RATE = 32000
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Beep(StageWidget):
    _esm, _css = "export default { render() {} };\n", stylesheet()

    def summary(self):
        return "1 s"

    def on_good(self, content):
        self.heard = content

    def on_bad(self, content):
        raise StageLiteError("got 3; expected 4")

    def on_broken(self, content):
        raise ZeroDivisionError("no such number")


@pytest.fixture
def beep():
    wav = torch.linspace(-1, 1, RATE)[None]
    widget = Beep(label="Beep <b>", listen_for="x < y", audio=pack({"beep": wav}, RATE))
    widget.told = []
    widget.comm.publish_msg = lambda kind, data=None, metadata=None, buffers=None, **_: (
        widget.told.append((data, buffers)) if kind == "comm_msg" else None
    )
    yield widget
    widget.close()


def test_repr_is_stable(beep):
    assert repr(beep) == "Beep(1 s)"


def test_the_bundle_of_a_cell(beep):
    data, _ = beep._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", WIDGET_VIEW}
    assert data[WIDGET_VIEW]["model_id"] == beep.model_id
    assert "Beep &lt;b&gt;" in data["text/html"] and "x &lt; y" in data["text/html"]
    assert "<b>" not in data["text/html"]


def test_a_cell_shows_the_still_picture_and_the_view(beep):
    """Two outputs: what a notebook without its kernel shows, and what one with it shows."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as shown:
        display(beep)
    still, view = (output.data for output in shown.outputs)
    assert set(still) == {"text/plain", "text/html"} and f'id="{beep._place}"' in still["text/html"]
    assert beep._twin() in still["text/html"] and "Run its cell to use it" in still["text/html"]
    assert view["text/html"] == "" and view[WIDGET_VIEW]["model_id"] == beep.model_id
    beep.close()
    with capture_output() as shown:
        display(beep)
    (only,) = shown.outputs
    assert "was closed" in only.data["text/html"]


def test_close_frees_the_audio_and_says_so(beep):
    beep.close()
    assert {"kind": "close"} in [data.get("content") for data, _ in beep.told if data]
    assert beep._pcm == b"" and beep._packed.data == b""
    data, _ = beep._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"} and "was closed" in data["text/html"]
    assert repr(beep) == "Beep(1 s)"
    beep.close()  # a second time is no error


def test_samples_arrive_as_they_are(beep):
    samples = np.frombuffer(beep._pcm, "<i2") / 32768
    assert len(samples) == RATE
    np.testing.assert_allclose(samples, np.linspace(-1, 1, RATE), atol=2**-15)
    np.testing.assert_array_equal(beep._packed.clip("beep")[0], samples.astype(np.float32))


def test_the_browser_cannot_change_the_bytes(beep):
    before = beep._pcm
    beep.set_state({"_pcm": b""})
    assert beep._pcm == before


def test_the_bytes_are_in_the_first_message_only(beep, monkeypatch):
    first = {}
    import ipywidgets.widgets.widget as module

    monkeypatch.setattr(
        module, "_remove_buffers", lambda state: first.update(state) or (state, [], [])
    )
    again = Beep(label="Beep", audio=pack({"beep": torch.zeros(1, RATE)}, RATE))
    assert len(first["_pcm"]) == 2 * RATE
    assert again.get_state()["_pcm"] == b"" and len(again.get_state(["_pcm"])["_pcm"]) == 2 * RATE


def test_lost_bytes_are_sent_again_and_at_last_as_text(beep):
    beep._handle_custom_msg({"kind": "audio_please", "base64": False}, [])
    data, buffers = beep.told[-1]
    assert data["content"] == {"kind": "audio"} and bytes(buffers[0]) == beep._pcm
    beep._handle_custom_msg({"kind": "audio_please", "base64": True}, [])
    data, buffers = beep.told[-1]
    assert not buffers and base64.b64decode(data["content"]["base64"]) == beep._pcm


def test_messages(beep):
    beep._handle_custom_msg({"kind": "good", "a": 1}, [memoryview(b"xy")])
    assert beep.heard == {"kind": "good", "a": 1, "buffers": [b"xy"]}
    for nonsense in (
        {},
        {"kind": "none"},
        {"kind": 3},
        "text",
        {"kind": "msg"},
        {"kind": "trait_change"},
    ):
        beep._handle_custom_msg(nonsense, [])
    assert beep.message == ""
    beep._handle_custom_msg({"kind": "bad"}, [])
    assert beep.message == "got 3; expected 4"


def test_a_bug_becomes_a_sentence_and_a_traceback(beep):
    with pytest.raises(ZeroDivisionError):
        beep._on_message(beep, {"kind": "broken"}, [])
    assert beep.message == "ZeroDivisionError: no such number"


def test_new_audio_has_a_new_word(beep):
    before = beep._sent
    beep.send_audio({"beep": torch.zeros(1, RATE)}, RATE)
    assert beep._sent != before and beep._pcm == bytes(2 * RATE)


# --- bytes -------------------------------------------------------------------------------------


def test_too_much_is_sent_at_a_lower_rate_and_says_so():
    clips = {str(i): 0.5 * torch.ones(1, 30 * RATE) for i in range(8)}
    packed = pack(clips, RATE)
    assert packed.sample_rate == 16000 and len(packed.data) <= 8_000_000
    assert packed.note == "Sent at 16000 Hz instead of 32000 Hz, to stay small."
    assert packed.clip("7").shape == (1, 30 * 16000)
    small = pack({str(i): wav for i, wav in enumerate(list(clips.values())[:4])}, RATE)
    assert small.sample_rate == RATE and small.note == "" and len(small.data) == 7_680_000


def test_what_fits_at_no_rate_is_refused():
    with pytest.raises(StageLiteError, match=r"too long.*at most 500 s together"):
        pack({"x": torch.zeros(1, 600 * 8000)}, 8000)


def test_channels():
    packed = pack(
        {"a": torch.ones(2, 8), "b": torch.tensor([[1.0], [0], [0], [0]]).repeat(1, 8)}, RATE
    )
    assert packed.clip("a").shape == (2, 8)
    np.testing.assert_allclose(packed.clip("b"), np.full((1, 8), 0.25))
    assert packed.clip("a").max() == 32767 / 32768  # +1 is not in 16 bit


# --- the twin ----------------------------------------------------------------------------------


def test_pictures_and_players_are_small_and_true():
    from stage_widgets.twin import player, wave_img

    noise = torch.rand(1, 30 * RATE, generator=torch.Generator().manual_seed(0)) - 0.5
    picture = wave_img(noise, RATE, "#D55E00", "dr<um>s", [0, 2, 4, 99])
    assert len(picture) < 4000
    assert 'alt="Waveform of dr&lt;um&gt;s: 30.0 s, -11 dBFS on average, 3 bar lines"' in picture
    sound = player(noise, RATE, "no<i>se")
    assert len(sound) < 40_000
    shown = float(re.search(r"no&lt;i&gt;se, the first ([\d.]+) of 30.0 s", sound)[1])
    import io

    import soundfile

    data = base64.b64decode(re.search(r"base64,([^\"]*)", sound)[1])
    samples, rate = soundfile.read(io.BytesIO(data))
    assert abs(len(samples) / rate - shown) < 0.15 and np.abs(samples).max() > 0.1
    assert "tone, 1.0 s" in player(noise[:, :RATE], RATE, "tone")
    assert "silent" in wave_img(torch.zeros(1, 5), RATE, "#D55E00", "nothing")


# --- threads -----------------------------------------------------------------------------------


def test_a_change_of_one_thread_is_not_lost_in_another(beep):
    """JupyterLab's messages come in a thread of their own, while a cell changes traits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for i in range(400):
            beep.told.clear()
            front_end = threading.Thread(
                target=beep.set_state, args=({"message": f"browser {i}", "note": f"{i}"},)
            )
            front_end.start()
            while beep.message != f"browser {i}":
                pass
            beep.message = f"cell {i}"
            front_end.join()
            assert beep.message == f"cell {i}"
            told = [data["state"] for data, _ in beep.told if data.get("method") == "update"]
            assert {"message": f"cell {i}"} in told, f"try {i}: the browser was not told"
    finally:
        sys.setswitchinterval(before)


def test_threads_that_wait_for_each_other_go_on(beep, monkeypatch):
    from stage_widgets import base

    monkeypatch.setattr(base, "TURN_S", 0.05)

    def wait_for_another_thread(change):
        other = threading.Thread(target=setattr, args=(beep, "note", change["new"]))
        other.start()
        other.join()

    beep.observe(wait_for_another_thread, "message")
    beep.set_state({"message": "hello"})
    assert beep.note == "hello"
