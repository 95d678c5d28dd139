"""What is promised of every widget, on all six: words are text, a clean end, sentences, sizes.

What each of them does is in its own file; two mixers, JupyterLab and Notebook 7 are in
test_widgets_lab.py and test_widgets_lab_model.py.
"""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import stage_widgets
import torch
from browser import PICTURES, axe
from mount import mount
from stage_widgets import (
    Accompanist,
    AttentionViewer,
    ListeningTest,
    MetronomePad,
    StemMixer,
    TokenGrid,
)
from test_attention import example

from stage_lite.batch import make_batch
from stage_lite.listening_test import ListeningItem

EVIL = '<img src=x onerror="window.evil = 1"><b>bold</b>'
RATE = 32000
BEATS = np.arange(0, 2, 0.5)
NAMES = ("mixer", "metronome", "tokens", "attention", "listening", "accompanist")
# What starts the sound of each.
PLAY = dict.fromkeys(NAMES, "Play") | {"listening": "Hear left"}
COUNT = """() => {
    window.made = []; const Old = window.AudioContext;
    window.AudioContext = class extends Old {
      constructor(options) { super(options); window.made.push(this); }
    };
}"""


def noise(seed, seconds=2.0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, round(seconds * RATE), generator=generator)


def codes(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 16, (4, frames), generator=generator)


def play_along(context, context_sample_rate):
    return 0.5 * context, context_sample_rate


class Player:
    """Stands for a StageModel in the panel."""

    sample_rate = RATE
    config = SimpleNamespace(name=EVIL, trained_s=2.0, lm=SimpleNamespace(vocabulary=()))

    def generate(self, *, duration_s, **_):
        return SimpleNamespace(wav=noise(3, duration_s)[None])


@pytest.fixture
def make(tiny_model, tmp_path):
    """A widget by its name, every word of it as bad as its maker may choose it."""

    def items():
        clips = {EVIL: (noise(1), RATE), "other": (noise(2), RATE)}
        return [ListeningItem(EVIL, clips)]

    def panel():
        panel = Accompanist(Player(), context=noise(4), sample_rate=RATE, stems=("drums", EVIL))
        panel.keep(panel.generate(EVIL, EVIL))
        return panel

    makers = {
        "mixer": lambda: StemMixer(
            {EVIL: noise(0), "bass": {EVIL: noise(1), "b": noise(2)}},
            RATE,
            beats=BEATS,
            downbeats=BEATS[::4],
            label=EVIL,
            listen_for=EVIL,
        ),
        "metronome": lambda: MetronomePad(
            120, 3, 2.0, generate=play_along, options={"description": EVIL}, label=EVIL,
            listen_for=EVIL,
        ),
        "tokens": lambda: TokenGrid(
            tiny_model, codes(100), context_codes=codes(50, 1), label=EVIL, listen_for=EVIL
        ),
        "attention": lambda: AttentionViewer(
            tiny_model, make_batch(tiny_model, [example(100, 100)]), beats=BEATS,
            downbeats=BEATS[::4], label=EVIL, listen_for=EVIL,
        ),
        "listening": lambda: ListeningTest(
            items(), folder=tmp_path / "t", question=EVIL, listener=1, n_listeners=1
        ),
        "accompanist": panel,
    }  # fmt: skip
    return lambda name: makers[name]()


def play(there, name):
    there.wait(lambda: there.root.get_by_role("button", name=PLAY[name], exact=True).is_enabled())
    if name == "accompanist":  # its sound comes when it is asked for
        there.wait(lambda: any(said["kind"] == "clip_please" for said in there.sent))
        there.sync()
    there.root.get_by_role("button", name=PLAY[name], exact=True).click()


def test_there_are_six():
    assert len(NAMES) == 6 == len([n for n in stage_widgets.__all__ if n != "StageWidget"])


@pytest.mark.parametrize("name", NAMES)
def test_words_are_text(name, make, page):
    widget = make(name)
    there = mount(page, widget).ready()
    there.sync()
    page.wait_for_timeout(100)
    assert page.evaluate("window.evil") is None
    assert there.root.locator("img, b").count() == 0
    fields = there.root.evaluate("e => [...e.querySelectorAll('input')].map((i) => i.value)")
    assert EVIL in there.root.inner_text() + " ".join(fields)
    html = widget._repr_mimebundle_()[0]["text/html"]
    assert 'onerror="' not in html and "<b>bold" not in html
    assert "Listen for:" in html and "<audio" in html and len(html) <= 50_000
    assert "Listen for:" in there.root.inner_text() and page.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_the_same_content_has_the_same_repr(name, make):
    first, second = make(name), make(name)
    assert repr(first) == repr(second) and " at 0x" not in repr(first)
    assert repr(first).startswith(type(first).__name__ + "(")


@pytest.mark.parametrize("name", NAMES)
def test_close_gives_the_audio_back(name, make, page):
    page.evaluate(COUNT)
    widget = make(name)
    there = mount(page, widget).ready()
    play(there, name)
    page.wait_for_function("made.length === 1 && made[0].state === 'running'")
    there.sync()
    widget.close()
    there.sync()
    page.wait_for_function("made[0].state === 'closed'")
    assert there.root.get_by_role("button").count() == 0
    assert "closed" in there.root.inner_text()
    assert widget._pcm == b"" and widget._packed.data == b""
    assert "This widget was closed." in widget._repr_mimebundle_()[0]["text/html"]
    widget.close()  # twice is no fault
    assert page.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_without_web_audio_there_is_a_sentence(name, make, page):
    page.evaluate("() => { delete window.AudioContext; delete window.webkitAudioContext; }")
    there = mount(page, make(name)).ready()
    play(there, name)
    there.wait(lambda: "This browser has no Web Audio" in there.status())
    assert page.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_a_restarted_kernel_is_a_sentence(name, make, page):
    there = mount(page, make(name)).ready()
    page.evaluate(f"stage['{there.id}'].model.fire('comm_live_update')")
    assert "Run the cell again" in there.status()
    assert there.root.get_by_role("button").count() > 2, "what is here can still be heard"


@pytest.mark.parametrize("name", NAMES)
def test_the_way_of_colab(name, make, page):
    """The first message comes without its bytes, the others as Uint8Array."""
    page.evaluate(COUNT)
    there = mount(page, make(name), how="Uint8Array", lose="first").ready()
    play(there, name)
    page.wait_for_function("made.length === 1 && made[0].state === 'running'")
    assert there.status() == "" or "did not arrive" not in there.status()
    assert page.problems == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_600_px_light_and_dark(name, dark, make, page):
    page.set_viewport_size({"width": 616, "height": 900})
    there = mount(page, make(name), width=600, dark=dark).ready()
    there.sync()
    page.wait_for_timeout(150)
    assert there.root.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert there.root.evaluate("e => e.getBoundingClientRect().right <= innerWidth")
    assert axe(page) == []
    unnamed = """e => [...e.querySelectorAll('canvas, [role=img]')].filter(
        (node) => !node.getAttribute('aria-label') || !node.getAttribute('role'))"""
    assert there.root.evaluate(f"e => ({unnamed})(e).length") == 0
    PICTURES.mkdir(parents=True, exist_ok=True)
    file = PICTURES / f"six_{name}_{'dark' if dark else 'light'}.png"
    page.screenshot(path=file, full_page=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_focus_can_be_reached_by_tab(name, make, page):
    """The widget, then each control that is not disabled; nothing keeps the focus to itself."""
    there = mount(page, make(name)).ready()
    there.sync()
    wanted = there.root.evaluate("""e => [...e.querySelectorAll(
        'button, select, input, summary, [tabindex="0"]')].filter((c) => !c.disabled &&
        c.getClientRects().length && c.tabIndex >= 0).length""")
    assert wanted > 3
    there.root.focus()
    reached = set()
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        place = page.evaluate("""() => { const a = document.activeElement;
            const all = [...document.querySelectorAll('*')];
            return a && a.closest('.stage-widget') ? all.indexOf(a) : -1; }""")
        if place < 0:
            break
        reached.add(place)
    assert len(reached) == wanted


def test_at_most_8_mb_are_sent(tiny_model, tmp_path):
    """All that opens a widget, JavaScript and styles too, at the longest that it takes."""
    long = {str(i): noise(i, 60.0) for i in range(8)}
    clips = {s: (noise(0, 28.0), RATE) for s in "abc"}
    pad = MetronomePad(120, 4, 120.0, generate=play_along)
    pad.generate_now()
    assert pad.wait(60)
    widgets = [
        StemMixer(long, RATE, beats=np.arange(0, 60, 0.25), downbeats=np.arange(0, 60, 1.0)),
        pad,
        TokenGrid(tiny_model, codes(3000), context_codes=codes(3000)),
        AttentionViewer(tiny_model, make_batch(tiny_model, [example(1500, 1500)])),
        ListeningTest([ListeningItem("x", clips, (noise(1, 28.0), RATE))], folder=tmp_path / "t"),
        Accompanist(Player(), context=noise(0, 120.0), sample_rate=RATE, duration_s=120.0),
    ]
    assert len({type(w) for w in widgets}) == 6
    for widget in widgets:
        state = widget.get_state(list(widget.keys))
        sent = sum(len(v) for v in state.values() if isinstance(v, bytes | memoryview))
        words = {k: v for k, v in state.items() if not isinstance(v, bytes | memoryview)}
        sent += len(json.dumps(words, default=str))
        assert sent <= 8_100_000, f"{type(widget).__name__}: {sent}"
        assert len(widget._packed.data) <= 8_000_000
        html = widget._repr_mimebundle_()[0]["text/html"]
        assert len(html) <= 50_000, f"{type(widget).__name__}: a still picture of {len(html)} bytes"
        assert re.search("<audio", html)
