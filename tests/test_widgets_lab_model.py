"""All six widgets in one notebook in a real JupyterLab, the shipped model among them.

Mixer and metronome, panel and listening test have sessions of their own (test_widgets_lab.py,
test_widgets_accompanist.py); here the token grid and the attention viewer are clicked, dragged and
typed at, and each of the others is touched once.
"""

import json

import pytest

pytestmark = pytest.mark.slow

SET_UP = """
import numpy as np, torch
import stage_lite as sl
from stage_lite.batch import make_batch
from stage_lite.examples import Example
from stage_lite.listening_test import ListeningItem
from stage_widgets import (Accompanist, AttentionViewer, ListeningTest, MetronomePad, StemMixer,
                           TokenGrid)
nano = sl.load("nano")
g = torch.Generator().manual_seed(0)
codes = torch.randint(0, nano.card, (2, nano.n_q, 100), generator=g)  # 2 s each
beats = np.arange(0, 2, 0.5)
wavs = {n: 0.1 * torch.randn(1, 32000, generator=g) for n in ("drums", "bass")}
"""
TOKENS = 'grid = TokenGrid(nano, codes[1], context_codes=codes[0], label="Tokens"); grid'
ATTENTION = """
example = Example(target=None, context=None, description="drums, rock", beat_times=beats,
                  downbeat_times=beats[::4], song_id="a", start_s=0.0, duration_s=2.0,
                  condition="mixture", context_codes=codes[0], target_codes=codes[1])
viewer = AttentionViewer(nano, make_batch(nano, [example]), beats=beats, downbeats=beats[::4],
                         label="Attention")
viewer
"""
MIXER = 'mixer = StemMixer(wavs, 32000, label="Stems"); mixer'
PAD = "pad = MetronomePad(bpm=100); pad"
TEST = """
items = [ListeningItem("song", {"a": (wavs["drums"], 32000), "b": (wavs["bass"], 32000)})]
test = ListeningTest(items, folder="six", pairs=[("a", "b")], listener=1, n_listeners=1)
test
"""
PANEL = "panel = Accompanist(nano); panel"
LABELS = ("Tokens", "Attention", "Stems", "Metronome", "Listening test", "Accompanist")


def drag(page, locator, start, end):
    """Press at one place of a locator, move to another, let go; places as parts of its size."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    (x, y), (to_x, to_y) = (
        (box["x"] + part[0] * box["width"], box["y"] + part[1] * box["height"])
        for part in (start, end)
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=6)
    page.mouse.up()


def test_all_six_in_jupyterlab(lab):
    book = lab.open([SET_UP, TOKENS, ATTENTION, MIXER, PAD, TEST, PANEL], "six", width=1000)
    book.run_all()
    widgets = {label: book.widget(label) for label in LABELS}
    page, tokens, attention = book.page, widgets["Tokens"], widgets["Attention"]
    assert book.page.locator(".stage-twin:visible").count() == 0, "a picture beside a live widget"

    # --- tokens: keys, which must not reach JupyterLab ("a", "l" and "1" are commands there)
    tokens.focus()
    start = book.python("grid.cursor")
    for key in ("ArrowDown", "ArrowRight", "[", "[", "a", "l", "1"):
        page.keyboard.press(key)
    book.wait_for("[grid.delay, grid.masks]", [2, ["attention", "loss"]])
    book.wait_for("grid.codebooks", [0, 2, 3])
    assert book.python("grid.cursor[0]") == start[0] + 1
    tokens.get_by_text("Off: codebook 1.").wait_for()  # Python has decoded the others
    page.keyboard.press("End")
    book.wait_for("grid.cursor[1] > 150")
    page.keyboard.press("]")
    page.keyboard.press("]")
    book.wait_for("grid.delay", 4)
    # click: a cell, a button
    cells = tokens.locator(".stage-cells")
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 18 + 3 * 26 + 8)
    book.wait_for("grid.cursor[0]", 3)
    chosen = book.python("grid.cursor[1]")
    tokens.get_by_role("button", name="codebook 1", exact=True).click()
    book.wait_for("grid.codebooks", [0, 1, 2, 3])
    # drag: the window over the sequence; then the same place of the grid is another step
    drag(page, tokens.locator(".stage-overview"), (0.9, 0.5), (0.1, 0.5))
    box = cells.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 18 + 3 * 26 + 8)
    book.wait_for(f"grid.cursor[1] < {chosen} - 60")
    tokens.get_by_role("button", name="Play", exact=True).click()
    book.wait_for("grid.playing")
    book.screenshot("tokens_lab", tokens)

    # --- attention: keys
    attention.focus()
    order = book.python("viewer._scores['order']")
    page.keyboard.press("n")
    book.wait_for("[viewer.layer, viewer.head]", order[1])
    page.keyboard.press("ArrowDown")
    book.wait_for("viewer.layer", (order[1][0] + 1) if order[1][0] < 5 else -1)
    page.keyboard.press("n")
    book.run("viewer.time_s = 0.61")
    attention.get_by_text("At 0.61 s of the target (bar 1.2)").wait_for()
    page.keyboard.press("Shift+ArrowRight")
    book.wait_for("viewer.time_s", 1.0)
    assert page.locator(".jp-MarkdownCell").count() == 0
    # click: the table of heads, a menu; drag: a line over the map
    heads = attention.locator(".stage-att-heads")
    heads.scroll_into_view_if_needed()
    box = heads.bounding_box()
    page.mouse.click(box["x"] + 5, box["y"] + box["height"] - 5)
    book.wait_for("[viewer.layer, viewer.head]", [5, 0])
    attention.get_by_role("combobox", name="layer").select_option("all layers")
    book.wait_for("[viewer.layer, viewer.head]", [-1, -1])
    assert abs(book.python("float(viewer.weights.sum())") - 0.5) < 0.5
    drag(page, attention.locator(".stage-att-main"), (0.25, 0.5), (0.75, 0.4))
    book.wait_for("abs(viewer.time_s - 1.5) < 0.05")
    attention.get_by_text("At 1.5").first.wait_for()
    attention.get_by_role("button", name="Hear this step").click()
    attention.get_by_text("Heard: the context from").wait_for()
    attention.get_by_role("button", name="context", exact=True).click()
    book.wait_for("viewer.sounds", ["target", "context", "head"])
    book.screenshot("attention_lab", attention)

    # --- the other four, once each
    widgets["Stems"].get_by_role("button", name="Solo bass").click()
    book.wait_for("mixer.solo", ["bass"])
    tempo = widgets["Metronome"].get_by_role("spinbutton", name="Tempo")
    tempo.fill("90")
    tempo.press("Enter")
    book.wait_for("pad.bpm", 90.0)
    widgets["Listening test"].get_by_role("button", name="Finish").click()
    widgets["Listening test"].get_by_text("Listen to left, right first.").wait_for()
    assert book.python("test.n_left") == 1
    assert book.python("[panel.busy, len(panel.takes)]") == [False, 0]

    assert book.axe() == []
    saved = book.save()
    assert "widgets" not in saved["metadata"]
    sizes = [len(str(cell["outputs"])) for cell in saved["cells"]]
    assert max(sizes) <= 50_000, sizes

    # Opened again with another kernel: all six as still pictures with a sentence, no error box.
    book.restart_kernel()
    book.reload()
    for i in range(1, 7):
        out = book.output(i)
        lost = out.locator(".jp-OutputArea-output.jupyter-widgets")
        lost.wait_for(state="attached")
        assert "model not found" in lost.text_content()
        still = out.get_by_text("Run its cell to use it.")
        still.scroll_into_view_if_needed()
        still.wait_for(state="visible")
        assert not lost.is_visible() and "Error" not in out.inner_text()
        assert out.locator(".stage-twin").count() == 1
    book.screenshot("six_again")
    assert book.problems == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_six_in_notebook_7(lab, dark):
    """Touched once each at 600 px; what use adds to the saved notebook; opened again."""
    cells = [SET_UP, TOKENS, ATTENTION, MIXER, PAD, TEST.replace("six", f"seven{dark}"), PANEL]
    book = lab.open(cells, f"seven_{dark}", front="notebook", width=600)
    book.run_all()
    if dark:
        book.command("apputils:change-theme", theme="JupyterLab Dark")
        book.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
        book.page.wait_for_timeout(500)
    before = len(json.dumps(book.save()))
    fits = "e => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= innerWidth"
    for label in LABELS:
        widget = book.widget(label)
        assert widget.evaluate(fits), f"{label} is wider than its place"
    tokens, attention, mixer, pad, test, panel = map(book.widget, LABELS)
    tokens.get_by_role("button", name="codebook 3", exact=True).click()
    tokens.get_by_role("button", name="what is lost").click()
    book.wait_for("[grid.codebooks, grid.lost]", [[0, 1, 2], True])
    attention.focus()
    first = book.python("[viewer.layer, viewer.head]")
    book.page.keyboard.press("n")
    book.wait_for(f"[viewer.layer, viewer.head] != {first}")
    mixer.get_by_role("button", name="Play", exact=True).click()
    book.wait_for("mixer.playing")
    pad.get_by_role("spinbutton", name="Tempo").fill("77")
    pad.get_by_role("spinbutton", name="Tempo").press("Enter")
    book.wait_for("pad.bpm", 77.0)
    test.focus()
    for key in ("1", "2", "ArrowLeft", "Enter"):
        book.page.keyboard.press(key)
        book.page.wait_for_timeout(300)
    book.wait_for("test.n_left", 0)
    panel.get_by_role("button", name="Use a click").click()
    book.wait_for("panel.song.context is not None")
    assert book.axe() == []
    for label in LABELS:
        name = f"notebook7_{label.split()[0].lower()}_{'dark' if dark else 'light'}"
        book.screenshot(name, book.widget(label))
    saved = book.save()
    assert "widgets" not in saved["metadata"]
    assert len(json.dumps(saved)) - before <= 50_000, "use made the notebook grow"
    assert book.problems == []
