"""MetronomePad in Python: what it says, and generating on it."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stage_widgets import MetronomePad

from stage_lite.errors import StageLiteError
from stage_lite.metronome import beat_grid, click_track

RATE = 8000
WAIT_S = 60


def pad_of(generate=None, **more):
    return MetronomePad(120, 4, 2.0, generate=generate, sample_rate=RATE, **more)


def test_beats_and_click_are_the_library_s():
    pad = MetronomePad(93.5, 3, 5.0, start_s=0.4)
    beats, downbeats = beat_grid(93.5, 3, duration_s=5.0, start_s=0.4)
    np.testing.assert_array_equal(pad.beats, beats)
    np.testing.assert_array_equal(pad.downbeats, downbeats)
    expected = click_track(beats, downbeats, duration_s=5.0, sample_rate=16000)
    torch.testing.assert_close(pad.click(16000), expected, rtol=0, atol=0)
    assert pad.click().shape == (1, 5 * 32000)


def test_a_curve_takes_the_place_of_the_tempo():
    curve = [(0.0, 60.0), (4.0, 120.0)]
    pad = MetronomePad(200, 4, 4.0, curve=curve)
    np.testing.assert_array_equal(pad.beats, beat_grid(curve, 4, duration_s=4.0)[0])
    pad.curve = []
    assert len(pad.beats) == 14  # 4 s at 200 bpm


def test_swing_moves_off_beats_and_nothing_else():
    pad = pad_of()
    plain, beats = pad.click(), pad.beats
    pad.swing = 0.66
    np.testing.assert_array_equal(pad.beats, beats)
    torch.testing.assert_close(pad.click(), plain, rtol=0, atol=0)
    pad.offbeats = True
    np.testing.assert_allclose(pad.offbeat_times, [0.33, 0.83, 1.33])
    extra = pad.click() - plain
    first = int(np.argmax(np.abs(extra[0].numpy()) > 1e-6))
    assert first in (int(0.33 * RATE), int(0.33 * RATE) + 1)
    assert 0.15 < float(extra.abs().max()) <= 0.25


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("bpm", 0, "bpm is 0; expected 20 to 400"),
        ("bpm", float("nan"), "bpm is nan"),
        ("beats_per_bar", 0, "beats_per_bar is 0; expected a whole number, 1 to 16"),
        ("beats_per_bar", 2.5, "beats_per_bar is 2.5"),
        ("duration_s", 1e9, "duration_s is 1000000000.0; expected 0.5 to 120"),
        ("swing", 0.9, "swing is 0.9; expected 0.5 to 0.75"),
        ("start_s", float("inf"), "start_s is inf"),
        ("curve", [(1, 100), (0, 100)], "times of the curve does not increase"),
        ("curve", [(0, 1e9)], "a tempo of the curve"),
        ("curve", [(0, 100, 3)], "expected a list of"),
        ("curve", [(i, 100) for i in range(999)], "999 points; expected at most 200"),
        ("curve", "abc", "curve is 'abc'; expected a list of"),
        ("start_s", "0", "start_s is '0'; expected a float"),
        ("listen_for", 3, "listen_for is 3; expected a text"),
        ("sample_rate", 0, "sample rate is 0; expected a whole number of Hz, 1000 to 192000"),
        ("sample_rate", "x", "sample rate is 'x'"),
        ("sample_rate", float("nan"), "sample rate is nan"),
        ("options", 3, "options is a int; expected more arguments"),
        ("on_result", 3, "on_result is a int; expected a function"),
    ],
)
def test_bad_settings(trait, value, message):
    with pytest.raises(StageLiteError, match=message):
        MetronomePad(**{trait: value})


def test_a_bad_setting_later_changes_nothing():
    pad = pad_of()
    for name, value in (("bpm", 1000), ("bpm", "fast"), ("curve", None), ("offbeats", "no")):
        before = getattr(pad, name)
        with pytest.raises(StageLiteError, match=f"{name} is .*; expected"):
            setattr(pad, name, value)
        assert getattr(pad, name) == before
    for rate in (-1, 0, "x", 8000.5):
        with pytest.raises(StageLiteError, match="expected a whole number of Hz"):
            pad.click(rate)
    assert MetronomePad(curve=None).curve == [], "no curve is none"


def test_generate_gets_the_click_and_what_it_asks_for():
    seen = {}

    def generate(context, context_sample_rate, duration_s, description, seed, progress):
        seen.update(locals())
        for step in range(4):
            progress(step + 1, 4)
        return SimpleNamespace(wav=0.5 * context[None], sample_rate=context_sample_rate)

    heard = []
    pad = pad_of(generate, options={"seed": 7, "description": "drums"}, on_result=heard.append)
    before = pad._sent
    pad.on_generate({})
    assert pad.wait(WAIT_S)
    assert (pad.busy, pad.progress, pad.message) == (False, 1.0, "")
    torch.testing.assert_close(seen["context"], pad.click())
    assert (seen["context_sample_rate"], seen["seed"], seen["description"]) == (RATE, 7, "drums")
    assert seen["duration_s"] == 2.0
    assert pad.result is heard[0]
    assert pad._sent != before, "the browser has it"
    np.testing.assert_allclose(pad._packed.clip("result"), 0.5 * pad.click(), atol=1e-4)
    assert "Generated on it" in pad.twin_html()


def test_a_function_that_takes_less_gets_less():
    pad = pad_of(lambda context: (context, RATE))
    pad.generate_now()
    assert pad.wait(WAIT_S) and pad.message == "" and pad.result[1] == RATE


def test_cancel_stops_at_the_next_step_and_a_second_try_works():
    reached, go_on = threading.Event(), threading.Event()

    def generate(context, progress):
        progress(1, 10)
        reached.set()
        go_on.wait(WAIT_S)
        progress(2, 10)
        return context, RATE

    pad = pad_of(generate)
    pad.generate_now()
    assert reached.wait(WAIT_S) and pad.busy
    with pytest.raises(StageLiteError, match="generating already"):
        pad.generate_now()
    pad.on_cancel({})
    go_on.set()
    assert pad.wait(WAIT_S)
    assert (pad.busy, pad.message, pad.result) == (False, "Cancelled.", None)
    pad.generate_now()
    assert pad.wait(WAIT_S) and pad.message == "" and pad.result is not None


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "generate returned a NoneType; expected a Generation or"),
        ((torch.zeros(1, 0), RATE), "what generate returned has 0 samples"),
        ((torch.full((1, RATE), float("nan")), RATE), "what generate returned has NaN"),
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh"),
        (StageLiteError("got 1; expected 2"), "^got 1; expected 2"),
    ],
)
def test_what_goes_wrong_becomes_a_sentence(returned, message):
    def generate(context):
        if isinstance(returned, Exception):
            raise returned
        return returned

    pad = pad_of(generate)
    pad.generate_now()
    assert pad.wait(WAIT_S)
    import re

    assert not pad.busy and re.search(message, pad.message)


def test_nothing_to_generate_with_or_on():
    pad = pad_of()
    pad._on_message(pad, {"kind": "generate"}, [])
    assert "nothing to generate with" in pad.message
    with pytest.raises(StageLiteError, match="expected a function"):
        pad_of("model")
    late = MetronomePad(20, 4, 0.5, start_s=0.6, generate=print)
    with pytest.raises(StageLiteError, match=r"no beat in 0\.5 s"):
        late.generate_now()


def test_a_model_generates_on_the_click(tiny_model):
    pad = MetronomePad(
        120, 4, 0.5, generate=tiny_model.generate, options={"seed": 0, "description": "drums"}
    )
    pad.generate_now()
    assert pad.wait(WAIT_S) and pad.message == ""
    again = tiny_model.generate(pad.click(), 32000, "drums", 0.5, seed=0)
    assert torch.equal(pad.result.codes, again.codes)


def test_repr_and_twin():
    pad = pad_of(curve=[(0, 60), (2, 90.5)])
    assert repr(pad) == "MetronomePad(60 to 90.5 bpm, 4 beats a bar, 2 s)"
    html = pad._repr_mimebundle_()[0]["text/html"]
    assert "<audio" in html and "<img" in html and len(html) < 50_000
