"""Every figure is a picture with a true description, and leaves nothing behind."""

import base64
import io
import re
import sys

import numpy as np
import pytest
import torch

from stage_lite import plots
from stage_lite.errors import StageLiteError

BEATS, DOWNBEATS = np.array([0.25, 0.5, 0.75]), np.array([0.25])
ONSETS = np.array([0.26, 0.4, 0.75])


def picture(figure):
    """The decoded PNG [height, width, 4] of what a notebook shows."""
    from matplotlib.image import imread

    html = figure._repr_html_()
    return imread(io.BytesIO(base64.b64decode(re.search(r"base64,([\w+/=]+)", html)[1])))


def waveforms(**options):
    wavs = {"mix": torch.rand(1, 8000) - 0.5, "drums, generated": torch.zeros(1, 6000)}
    return plots.waveforms(wavs, 8000, BEATS, DOWNBEATS, **options)


def test_waveforms_say_what_they_show():
    figure = waveforms(onset_times={"drums, generated": ONSETS}, caption="two <rows>")
    assert figure.alt == (
        "Waveforms of mix and drums, generated over 1.0 s, with 3 beats. "
        "drums, generated: 3 onsets, 67% of the beats hit."
    )
    image = picture(figure)
    assert image.shape[0] > 150 and image.shape[1] > 800 and image.std() > 0.01
    assert (
        "<figure" in figure._repr_html_()
        and "two &lt;rows&gt;</figcaption>" in figure._repr_html_()
    )
    assert repr(figure) == f"Figure: {figure.alt}"


def test_waveforms_of_silence_of_one_sample_and_without_beats():
    plots.waveforms({"mix": torch.zeros(1, 100)}, 8000, onset_times={"mix": ONSETS})
    plots.waveforms({"mix": torch.zeros(2, 1)}, 8000)
    plots.waveforms({"a": torch.zeros(1, 9)}, 8000, BEATS, onset_times={"a": np.zeros(0)})


def test_beat_positions_count_what_is_near_the_beat():
    figure = plots.beat_positions({"drums": ONSETS, "bass": np.zeros(0)}, BEATS)
    assert "drums: 3 onsets, 67% within a sixteenth of a beat of the beat" in figure.alt
    assert "bass: 0 onsets" in figure.alt
    assert picture(figure).std() > 0.01


def test_lock_bars():
    figure = plots.lock_bars({"drums, generated": 0.5, "drums, real": -0.25, "bass": None})
    assert figure.alt == ("Bars of beat lock: drums, generated 0.50, drums, real -0.25, bass none.")
    assert picture(figure).std() > 0.01


@pytest.mark.parametrize(
    "draw",
    [lambda: plots.waveforms({}, 8000), lambda: plots.beat_positions({}, BEATS),
     lambda: plots.lock_bars({})],
)  # fmt: skip
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(StageLiteError, match="got nothing to draw; expected at least one"):
        draw()


def test_no_figure_without_words():
    canvas, _ = plots.new_figure()
    with pytest.raises(StageLiteError, match="without alt text"):
        plots.render(canvas, "  ")


def test_a_figure_is_saved_and_the_same_twice(tmp_path):
    figures = [plots.beat_positions({"drums": ONSETS}, BEATS) for _ in range(2)]
    assert figures[0].png == figures[1].png
    file = figures[0].save(tmp_path / "figure.png")
    assert file.read_bytes() == figures[0].png
    assert [f.name for f in tmp_path.iterdir()] == ["figure.png"]


def test_stems_keep_their_colours():
    assert plots.colour_of("drums, generated") == plots.colour_of("Drums") == "#D55E00"
    assert plots.colour_of("mix: what it hears") == plots.COLOURS["mix"]
    assert plots.colour_of("drums of another song") == plots.colour_of("??") == plots.GREY
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)


def test_every_plot_is_tried_here():
    """A figure function that is added to plots.py needs a test of its alt text."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(plots.__file__).read_text())
    drawn = {
        f.name for f in tree.body
        if isinstance(f, ast.FunctionDef) and getattr(f.returns, "id", "") == "Figure"
    }  # fmt: skip
    tests = Path(__file__).read_text()
    assert {name for name in drawn if f"plots.{name}(" not in tests} == set()


def test_pyplot_is_left_alone():
    import subprocess

    code = (
        "import sys, torch\nfrom stage_lite import plots\n"
        "plots.waveforms({'mix': torch.zeros(1, 100)}, 8000)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'librosa' not in sys.modules and 'audiocraft' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
