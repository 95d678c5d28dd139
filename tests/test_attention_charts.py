"""The picture of all that a head looks at: its words are the data's."""

import base64
import io
import re

import pytest
import torch

from stage_lite.attention import Layout
from stage_lite.attention_charts import attention_regions
from stage_lite.errors import StageLiteError

WHERE = Layout(start=2, n_context=30, token=33, n_target=20)  # two columns of padding in front


def head(share_of_context=0.5):
    weights = torch.zeros(23, 2 + 1 + 30 + 1 + 23)
    rows = torch.arange(20)
    weights[rows, 3 + rows] = share_of_context  # its own time in the context
    weights[rows, 33] = 0.25
    weights[rows, 34 + rows] = 0.75 - share_of_context
    return weights


def picture(figure):
    from matplotlib.image import imread

    html = figure._repr_html_()
    return imread(io.BytesIO(base64.b64decode(re.search(r"base64,([\w+/=]+)", html)[1])))


def test_regions_are_told_in_words():
    figure = attention_regions({"one": head(), "two": head(0.0)}, WHERE, 50.0, [0.1, 0.5], [0.1])
    assert figure.alt == (
        "Attention of 2 heads, from 20 steps of the target to 54 steps of context, token and "
        "target. one: context 50%, context token 25%, target itself 25%; two: context 0%, context "
        "token 25%, target itself 75%."
    )
    assert picture(figure).std() > 0.05


def test_beats_are_lines_on_both_axes():
    with_beats = attention_regions({"one": head()}, WHERE, 50.0, [0.2])
    assert (picture(with_beats) != picture(attention_regions({"one": head()}, WHERE, 50.0))).any()


@pytest.mark.parametrize(
    "heads, where, message",
    [
        ({}, WHERE, "at least one head"),
        ({"one": head()}, Layout(0, 0, None, 20), "no context"),
        ({"one": head()[:, :33]}, WHERE, "'one' has 23 rows and 33 columns; expected at least 20"),
        ({"one": head()[:10]}, WHERE, "'one' has 10 rows"),
    ],
)
def test_nothing_to_draw_is_said(heads, where, message):
    with pytest.raises(StageLiteError, match=message):
        attention_regions(heads, where, 50.0)
