"""What every widget keeps to: silence before a click, a second until it is seen, 8 MB, 30 frames/s.

Times are counted as work, not by the clock: a busy machine does not change them.
"""

import time

import numpy as np
import pytest
import torch
from mount import mount
from stage_widgets import AttentionViewer, MetronomePad, StemMixer, TokenGrid
from test_attention import example
from test_widgets_tokens import codes

from stage_lite.batch import make_batch

COUNT = (
    "() => { window.made = 0; class C extends AudioContext { constructor(o) { super(o); "
    "window.made++; } } window.AudioContext = C; }"
)
PLAYERS = {
    "mixer": lambda model: StemMixer({"drums": torch.rand(1, 320_000) - 0.5}, 32000),
    "metronome": lambda model: MetronomePad(120, 4, 10.0),
    "tokens": lambda model: TokenGrid(model, codes(500), context_codes=codes(500, 1)),
    "attention": lambda model: AttentionViewer(model, make_batch(model, [example(500, 500)])),
}


@pytest.mark.parametrize("name", PLAYERS)
def test_no_audio_context_before_the_first_click(page, tiny_model, name):
    """As a browser demands; the panel and the listening test have this in their own tests."""
    page.evaluate(COUNT)
    there = mount(page, PLAYERS[name](tiny_model)).ready()
    there.root.hover()
    there.root.focus()
    page.keyboard.press("Tab")
    page.wait_for_timeout(200)
    assert page.evaluate("window.made") == 0
    there.root.get_by_role("button", name="Play", exact=True).click()
    there.wait(lambda: there.widget.playing)
    assert page.evaluate("window.made") == 1
    assert page.problems == []


class Work:
    """CPU seconds that a page spends on its own thread."""

    def __init__(self, page):
        self.client = page.context.new_cdp_session(page)
        self.client.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self):
        found = self.client.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in found if m["name"] == "TaskDuration")


@pytest.mark.slow
def test_four_stems_of_30_s_are_a_second_of_work(page):
    """Python and the page one after the other; the same by the clock is in test_widgets_page.py."""
    generator = torch.Generator().manual_seed(0)
    stems = {str(i): 0.1 * torch.randn(1, 30 * 32000, generator=generator) for i in range(4)}
    StemMixer({"warm": stems["0"]}, 32000)._repr_mimebundle_()  # imports are not counted
    before = time.thread_time()
    mixer = StemMixer(stems, 32000)
    mixer._repr_mimebundle_()
    python_s = time.thread_time() - before
    work = Work(page)
    start = work.seconds()
    mount(page, mixer).ready()
    # The wire of the test takes the bytes as text and turns them back: that is in here too.
    page_s = work.seconds() - start
    assert len(mixer._pcm) == 4 * 30 * 32000 * 2
    assert python_s + page_s < 1.0, (python_s, page_s)


@pytest.mark.parametrize("name", ["mixer", "tokens", "attention"])
def test_thirty_frames_a_second_while_it_plays(page, tiny_model, name):
    """Work per drawn frame, in the mean: at most a thirtieth of a second."""
    if name == "mixer":
        beats = np.arange(0, 30, 0.25)
        stems = {str(i): torch.rand(1, 960_000) - 0.5 for i in range(8)}
        widget = StemMixer(stems, 32000, beats=beats, downbeats=beats[::4])
    elif name == "tokens":
        widget = TokenGrid(tiny_model, codes(1500), context_codes=codes(1500, 1))
    else:
        widget = AttentionViewer(tiny_model, make_batch(tiny_model, [example(1500, 1500)]))
    there = mount(page, widget).ready()
    page.wait_for_timeout(300)
    work = Work(page)
    page.evaluate("""() => {
        window.frames = 0; const old = window.requestAnimationFrame;
        window.requestAnimationFrame = (fn) => old((t) => { window.frames++; fn(t); });
    }""")
    there.root.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("frames > 3")
    start, first = work.seconds(), page.evaluate("frames")
    page.wait_for_function(f"frames > {first} + 30")
    per_frame = (work.seconds() - start) / (page.evaluate("frames") - first)
    assert per_frame < 1 / 30, f"{1000 * per_frame:.1f} ms of work per frame"
    assert widget.playing or there.root.get_by_role("button", name="Pause").count()
