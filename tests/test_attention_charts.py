"""The picture of all that a head looks at: its words are the data's."""

import base64
import io
import re

import pytest
import torch
from test_attention import example

import stage_lite as sl
from stage_lite.attention_charts import attention_regions
from stage_lite.batch import make_batch
from stage_lite.errors import StageLiteError


@pytest.fixture
def out(tiny_model):
    """Row 1 has two columns of padding in front, row 2 no context."""
    return make_batch(tiny_model, [example(32), example(30), example(None)])


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


def test_regions_are_told_in_words(out):
    heads = {"one": head(), "two": head(0.0)}
    figure = attention_regions(heads, out, 50.0, [0.1, 0.3], [0.1], row=1)
    assert figure.alt == (
        "Attention of 2 heads, from 20 steps of the target to 54 steps of context, token and "
        "target. one: context 50%, context token 25%, target itself 25%; two: context 0%, context "
        "token 25%, target itself 75%."
    )
    assert picture(figure).std() > 0.05


def test_beats_are_lines_on_both_axes(out):
    with_beats, without = (
        picture(attention_regions({"one": head()}, out, 50.0, beats, row=1))[..., :3]
        for beats in ([0.2], [])
    )
    drawn = (with_beats != without).any(-1)
    assert (drawn.mean(1) > 0.5).any(), "a line over the whole width"
    assert (drawn.mean(0) > 0.5).sum() >= 2, "two over the height: in the context and the target"


def test_a_head_of_a_model(tiny_model, out):
    whole = sl.attention(tiny_model, out, row=1, whole=True)
    part = sl.attention(tiny_model, out, row=1)
    assert torch.equal(whole[..., : part.shape[-1]], part)
    torch.testing.assert_close(whole.sum(-1), torch.ones(whole.shape[:3]))
    assert "1 heads" in attention_regions({"x": whole[0, 0]}, out, 50.0, row=1).alt
    with pytest.raises(StageLiteError, match=r"attention\(\.\.\., whole=True\)"):
        attention_regions({"x": part[0, 0]}, out, 50.0, row=1)


@pytest.mark.parametrize(
    ("heads", "row", "message"),
    [
        ({}, 1, "at least one head"),
        ({"one": head()}, 2, "no context"),
        ({"one": head()[:, :33]}, 1, "'one' has 23 rows and 33 columns; expected at least 20"),
        ({"one": head()[:10]}, 1, "'one' has 10 rows"),
    ],
)
def test_nothing_to_draw_is_said(out, heads, row, message):
    with pytest.raises(StageLiteError, match=message):
        attention_regions(heads, out, 50.0, row=row)
