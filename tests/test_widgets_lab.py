"""The mixer and the metronome in a real JupyterLab and Notebook 7, in headless Chromium."""

import os

import pytest

pytestmark = pytest.mark.slow

SET_UP = """
import numpy as np, torch
from stage_widgets import MetronomePad, StemMixer
rate, duration_s = 32000, 30
beats = np.arange(0, duration_s, 0.5)
g = torch.Generator().manual_seed(0)
noise = {n: 0.1 * torch.randn(1, rate * duration_s, generator=g) for n in ("drums", "bass", "keys")}
"""
MIXERS = """
mixer = StemMixer({**noise, "<img src=x onerror=alert(1)>": noise["bass"]}, rate, beats=beats,
                  downbeats=beats[::4], label="Four stems")
mixer
"""
SECOND = """
second = StemMixer({"drums": {"right click": noise["drums"], "another click": noise["keys"]},
                    "bass": noise["bass"][:, :rate]}, rate, label="Two stems")
second
"""
SHORT = """
stems = {n: noise[n][:, : 3 * rate] for n in ("drums", "bass")}
short = StemMixer(stems, rate, label="Short stems")
short
"""
PAD = """
import threading
gate = threading.Event()
def play_along(context, context_sample_rate, description, progress):
    progress(1, 4)
    gate.wait()
    progress(2, 4)
    return 0.5 * context, context_sample_rate
pad = MetronomePad(bpm=100, generate=play_along, options={"description": "drums, rock"})
pad
"""


def test_session_in_jupyterlab(lab):
    """Run all, click, drag, type, two mixers at once; then save, restart, open again."""
    book = lab.open([SET_UP, MIXERS, SECOND, PAD], "session")
    book.run_all()
    first, second, pad = map(book.widget, ("Four stems", "Two stems", "Metronome"))

    # No audio before a click; then two mixers play, each on its own clock.
    first.get_by_role("button", name="Play").click()
    second.get_by_role("button", name="Play").press("Enter")
    book.wait_for("mixer.playing and second.playing")
    second.get_by_role("combobox", name="Version of drums").select_option("another click")
    book.wait_for("second.version['drums']", "another click")
    assert book.python("second.playing")
    first.get_by_role("button", name="Solo bass").click()
    first.get_by_role("button", name="Mute drums").click()
    book.wait_for("[mixer.solo, mixer.mute]", [["bass"], ["click", "drums"]])
    first.get_by_role("slider", name="Gain of keys").fill("-12")
    book.wait_for("mixer.gain_db['keys']", -12)

    # A drag over the ruler loops the bars that it passes; the trait is Python's too.
    ruler = first.get_by_role("slider", name="Position")
    ruler.scroll_into_view_if_needed()
    box = ruler.bounding_box()
    second_px = box["width"] / 30
    y = box["y"] + box["height"] / 2
    book.page.mouse.move(box["x"] + 2.5 * second_px, y)
    book.page.mouse.down()
    book.page.mouse.move(box["x"] + 5.5 * second_px, y, steps=4)
    book.page.mouse.up()
    book.wait_for("mixer.loop_s", [2.0, 6.0])
    book.wait_for("mixer.playing and 2 <= mixer.position_s < 6")
    book.run("mixer.loop_bars(3, 3)")
    bar = first.get_by_role("spinbutton", name="First bar")
    book.page.wait_for_function("e => e.value === '3'", arg=bar.element_handle())

    # Keys belong to the widget, not to JupyterLab ("m" would turn the cell into Markdown).
    first.focus()
    book.page.keyboard.press("Space")
    book.wait_for("mixer.playing", False)
    book.page.keyboard.press("ArrowUp")  # from keys, whose fader was moved last
    book.page.keyboard.press("m")
    book.wait_for("'bass' in mixer.mute")
    assert book.page.locator(".jp-MarkdownCell").count() == 0

    # The metronome: type a tempo, generate on it, cancel a second try; the kernel goes on.
    tempo = pad.get_by_role("spinbutton", name="Tempo")
    tempo.fill("90")
    tempo.press("Enter")
    book.wait_for("pad.bpm", 90.0)
    pad.get_by_role("button", name="Generate on this click").click()
    book.wait_for("[pad.busy, pad.progress]", [True, 0.25])
    book.run("gate.set()")
    book.wait_for("pad.busy", False)
    assert book.python("pad.result[0].shape[1] / 32000") == 8
    book.run("gate.clear()")
    pad.get_by_role("button", name="Generate on this click").click()
    book.wait_for("[pad.busy, pad.progress]", [True, 0.25])
    pad.get_by_role("button", name="Cancel").click()
    book.wait_for("pad._job.cancelled")
    book.run("gate.set()")
    book.wait_for("[pad.busy, pad.message]", [False, "Cancelled."])
    pad.get_by_text("Cancelled.").wait_for()

    assert book.axe() == []
    assert book.page.locator("img[src=x]").count() == 0, "a name was read as HTML"
    book.screenshot("session_lab")
    book.screenshot("mixer_lab", first)
    book.screenshot("metronome_lab", pad)

    # A saved notebook holds still pictures and model ids, no audio and no state.
    empty = len(book.path.read_text())
    saved = book.save()
    grown = {i: len(str(cell["outputs"])) for i, cell in enumerate(saved["cells"])}
    assert "widgets" not in saved["metadata"]
    assert all(size <= 50_000 for size in grown.values()), grown
    assert os.path.getsize(book.path) - empty <= 50_000 * 3

    book.run("second.close()")
    book.page.wait_for_function(
        "!document.querySelector('.stage-widget[aria-label=\"Two stems\"] button')"
    )
    assert book.problems == []


def test_opened_again(lab):
    """The tab closes in mid-generation, a kernel is restarted, a notebook is opened without one."""
    book = lab.open([SET_UP, SHORT, PAD], "again")
    book.run_all()
    pad = book.widget("Metronome")
    pad.get_by_role("button", name="Generate on this click").click()
    book.wait_for("[pad.busy, pad.progress]", [True, 0.25])
    book.save()

    # Kernel alive: it goes on, and all widgets are there again, with their sound.
    book.reload()
    book.run("gate.set()")
    book.wait_for("[pad.busy, pad.message]", [False, ""])
    short = book.widget("Short stems")
    short.get_by_role("button", name="Play").click()
    book.wait_for("short.position_s > 0")

    # Kernel restarted: a sentence; the sound is still here.
    book.restart_kernel()
    short.get_by_text("Python was restarted").wait_for()
    assert short.get_by_role("button", name="Solo bass").is_enabled()

    # Opened without it: the still picture and a sentence of ours, no error box.
    book.reload()
    for i in (1, 2):
        lost = book.output(i).locator(".jp-OutputArea-output.jupyter-widgets")
        lost.wait_for(state="attached")  # it is there, and what it says is not shown
        assert "model not found" in lost.text_content() and not lost.is_visible()
        still = book.output(i).get_by_text("A still picture of a widget. Run its cell to use it.")
        still.wait_for(state="visible")
        assert "Error" not in book.output(i).inner_text()
    assert book.output(1).locator("audio").count() == 1
    book.screenshot("opened_again")
    book.run_all()  # and its cells bring the widgets back
    book.widget("Short stems")
    still = book.output(1).get_by_text("A still picture of a widget.")
    assert still.count() == 1 and not still.is_visible()
    assert book.problems == []


def test_notebook_7_narrow_and_dark(lab):
    """The same widgets in Notebook 7 at 600 px; then in JupyterLab's dark theme."""
    book = lab.open([SET_UP, MIXERS, PAD], "narrow", front="notebook", width=600)
    book.run_all()
    first = book.widget("Four stems")
    first.get_by_role("button", name="Play").click()
    book.wait_for("mixer.playing")
    for name in ("Four stems", "Metronome"):
        widget = book.widget(name)
        fits = (
            "e => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= innerWidth"
        )
        assert widget.evaluate(fits), f"{name} is wider than its place"
    assert book.axe() == []
    book.screenshot("mixer_notebook7", first)
    book.screenshot("metronome_notebook7", book.widget("Metronome"))
    book.command("apputils:change-theme", theme="JupyterLab Dark")
    book.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    book.page.wait_for_timeout(500)
    assert book.axe() == []
    book.screenshot("mixer_dark", first)
    book.screenshot("metronome_dark", book.widget("Metronome"))
    assert book.problems == []
