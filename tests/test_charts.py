"""Figures of the lessons: a true description, the right colours, and a sentence for nothing."""

import base64
import io
import re

import numpy as np
import pytest
import torch

from stage_lite import charts
from stage_lite.errors import StageLiteError

IDS = torch.tensor([[[8, 0, 1, 9, 2, 8], [8, 8, 3, 4, 9, 5]]])[0]  # special 8, context token 9


def picture(figure):
    from matplotlib.image import imread

    html = figure._repr_html_()
    return imread(io.BytesIO(base64.b64decode(re.search(r"base64,([\w+/=]+)", html)[1])))


def test_token_grid_tells_codes_from_tokens():
    figure = charts.token_grid(IDS, 8, 9, caption="six steps")
    assert figure.alt == (
        "Grid of 2 codebooks by 6 steps; special token in 4 places; context token at steps [3, 4] "
        "of codebooks 0 to 1; row by row: . 0 1 C 2 . / . . 3 4 C 5."
    )
    assert picture(figure).std() > 0.05


def test_token_grid_of_a_group_and_of_many_steps():
    chosen = torch.zeros_like(IDS, dtype=torch.bool)
    chosen[0, 1] = True
    figure = charts.token_grid(IDS, 8, 9, groups={"chosen": chosen})
    assert "chosen in 1 place;" in figure.alt
    long = charts.token_grid(torch.arange(400).view(2, 200), step_name="frame")
    assert long.alt == "Grid of 2 codebooks by 200 frames."  # too many to read out


def test_token_grid_without_a_token_in_one_codebook():
    ids = torch.tensor([[9, 1], [0, 1]])
    assert "context token at steps [0, -1]" in charts.token_grid(ids, 8, 9).alt


def test_curves_tell_their_ends_and_levels():
    lines = {"loss": [4.0, 3.0, 2.5], "none": []}
    figure = charts.curves(
        lines, [10, 20, 30], x_label="steps", y_label="nats", levels={"guessing": 6.2}, log_y=True
    )
    assert figure.alt == (
        "nats over steps: loss from 4 at 10 to 2.5 at 30; none is empty; dashed, guessing: 6.2."
    )
    assert picture(figure).std() > 0.01


def test_the_legend_of_many_curves_hides_none(monkeypatch):
    drawn, render = [], charts.render
    monkeypatch.setattr(charts, "render", lambda *a: drawn.append(a[0]) or render(*a))
    charts.curves({name: [0.0, 1.0, 0.0] for name in "abcd"}, x_label="step", y_label="loss")
    (axis,) = drawn[0].axes
    assert axis.get_legend().get_window_extent().y0 >= axis.get_window_extent().y1


def test_bars_and_heat():
    figure = charts.bars({"right": 1.25, "wrong": -0.5}, "nats")
    assert figure.alt == "Bars of nats: right 1.25, wrong -0.5." and picture(figure).std() > 0.01
    assert charts.bars({"zero": 0.0}, "nats").alt == "Bars of nats: zero 0."
    values = torch.zeros(2, 3)
    values[1, 2] = 4.0
    figure = charts.heat(values, x_label="step", y_label="head", rows=["a", "b"], lines=[1])
    assert (
        "2 rows (head) by 3 columns (step), values 0 to 4, highest in row 1, column 2" in figure.alt
    )


def test_intervals_tell_value_and_ends():
    found = {"model": {"value": 0.5, "low": 0.25, "high": 1.0},
             "one song": {"value": 0.75, "low": np.nan, "high": np.nan}}  # fmt: skip
    figure = charts.intervals(found, "beat F1", line=0.0, caption="two")
    assert figure.alt == (
        "beat F1, points with intervals: model 0.5 [0.25, 1], one song 0.75, dashed line at 0."
    )
    assert picture(figure).std() > 0.01


def test_quantisation_measures_what_is_left():
    points = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    books = [torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])]
    figure = charts.quantisation(points, books, torch.tensor([[0, 1], [0, 1]]))
    assert "with 1 of 2 codebooks 0.50, with 2 of 2 codebooks 0.00" in figure.alt


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.token_grid(torch.zeros(4, 0, dtype=torch.long)),
        lambda: charts.curves({}, x_label="x", y_label="y"),
        lambda: charts.bars({}, "x"),
        lambda: charts.intervals({}, "x"),
        lambda: charts.heat(np.zeros((0, 3)), x_label="x", y_label="y"),
        lambda: charts.quantisation(torch.zeros(0, 2), [], torch.zeros(0, 0, dtype=torch.long)),
    ],
)
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(StageLiteError, match="to draw; expected at least one"):
        draw()
