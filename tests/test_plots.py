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


def test_attention_map_says_how_much_is_aligned():
    frames = torch.eye(100) * 0.5
    figure = plots.attention_map(frames, 50.0, BEATS, DOWNBEATS)
    assert figure.alt == (
        "Attention map from 2.0 s of target to 2.0 s of context, with 3 beats. A step gives the "
        "context 50% of its attention; 100% of that lies within 0.1 s of the target's own time, "
        "by chance 11%."
    )
    assert picture(figure).std() > 0.01
    short = plots.attention_map(torch.full((30, 20), 0.01), 50.0, top=0.5)
    assert "0.6 s of target to 0.4 s of context" in short.alt
    assert "20% of its attention" in short.alt


def test_head_map_names_the_highest():
    values = torch.tensor([[0.1, 0.9, torch.nan], [0.5, 0.2, 0.0]])
    figure = plots.head_map(values, "share on the diagonal")
    assert figure.alt == (
        "Share on the diagonal of 2 layers of 3 heads. Highest: layer 0 head 1 0.90, layer 1 "
        "head 0 0.50, layer 1 head 1 0.20."
    )
    assert picture(figure).std() > 0.01
    assert plots.head_map(torch.full((1, 1), torch.nan), "x").alt.endswith("Highest: none.")


def test_lag_profiles_name_the_peak():
    profile = torch.ones(201)
    profile[120] = 8.0
    figure = plots.lag_profiles(
        range(-100, 101), {"head": profile, "dead": profile * torch.nan}, 50.0, beat_s=0.5
    )
    assert figure.alt == (
        "Attention by lag. head: highest at +0.40 s, 8.0 times chance; dead: nothing."
    )
    assert picture(figure).std() > 0.01


def test_head_effects_say_what_is_kept():
    import pandas as pd

    table = pd.DataFrame(
        {"gap": [0.8, 0.2, 0.0], "low": [0.6, 0.1, 0.0], "high": [1.0, 0.3, 0.0],
         "kept": [1.0, 0.25, 0.0]},
        index=["nothing cut", "two", "all heads cut"],
    )  # fmt: skip
    figure = plots.head_effects(table)
    assert figure.alt == (
        "What the context is worth: nothing cut 0.80, 100% kept; two 0.20, 25% kept; "
        "all heads cut 0.00, 0% kept."
    )
    assert picture(figure).std() > 0.01


@pytest.mark.parametrize(
    "draw",
    [lambda: plots.waveforms({}, 8000), lambda: plots.beat_positions({}, BEATS),
     lambda: plots.lock_bars({}), lambda: plots.attention_map(torch.zeros(0, 5), 50.0),
     lambda: plots.head_map(torch.zeros(0, 4), "x"), lambda: plots.lag_profiles([], {}, 50.0),
     lambda: plots.head_effects([])],
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
