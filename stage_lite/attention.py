"""What a step of the target looks at in the prefix.

        steps      0   1 2 3 4   5    6 7 8 ...
        codebook 0 .   c c c c   C    t t t ...      . start, c context, C context token, t target
                   └── columns ──┘    └─ rows ─>

Attention is computed once more, in one pass over the finished sequence (teacher forcing): what a
step looks at depends on what stands before it only, so this is what it looked at while it wrote,
in the branch of guidance that had its conditions.

The delay shifts rows and columns alike. Row i is the step at which codebook 0 holds frame i of the
target (codebook k: frame i - k), and it writes step i + 1; column start + 1 + j is the step at
which codebook 0 holds frame j of the context. So a head that looks at its own time in the context
draws a diagonal that the delay does not bend. The last K - 1 frames of the context's late
codebooks stand beside the first rows: what is read of them there counts as the target's own past.

Notebook: 06_attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .attention_heads import head_effects, without_heads
from .batch import Batch
from .errors import StageLiteError
from .generation import Generation
from .lm import Keep, forward
from .lm_weights import inside

if TYPE_CHECKING:
    from pandas import DataFrame

    from .model import StageModel

__all__ = [
    "Diagonal", "Layout", "attention", "diagonal", "frame_attention", "head_effects", "head_table",
    "lag_profile", "layout", "shares", "shares_by_frame", "text_attention", "without_heads",
]  # fmt: skip

TOLERANCE_S = 0.1  # how near to its own time a step must look, to count as aligned
LEAST_SHARE = 0.25  # of the frames must lie on a diagonal that a lag profile averages


@torch.no_grad()
def attention(
    model: StageModel,
    out: Generation | Batch,
    *,
    row: int = 0,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    whole: bool = False,
) -> Float[Tensor, "layer head S_target S_columns"]:
    """Self-attention from the steps of the target (rows) to the steps of the prefix (columns).

    A row's weights sum to at most 1; the rest goes to the target's own past and to the step itself.
    Columns are the start step, the context, the context token (`layout` says which); those of a
    batch's padding are 0.

    Memory: the result, plus what one layer takes while it is computed. 8 s + 8 s of MusicGen-small
    are 250 MB for all its 24 x 16 heads; choose layers, heads or steps for less.

    Of a generation in several windows (longer than the model was trained on) it is the last window.

    Args:
        model: that wrote `out`; its weights are used as they are, in the precision they have.
        out: a Generation; or a Batch (`batch.make_batch(model, examples)`), to see how real stems
            are read.
        row: of the batch.
        layers, heads, steps: which to keep, in this order; None is all. Steps count from the first
            step of the target. The pass is over all of them in any case.
        whole: also the columns of the target itself, so that rows sum to 1; twice the memory.

    Raises:
        StageLiteError: a row, layer, head or step that is not there, or another model's codes.
    """
    inputs, n_steps = _inputs(model, out, row), _n_steps(out)
    n_layers, n_heads = _sizes(model)
    kept = _choice("layers", layers, n_layers)
    columns = slice(0, None if whole else out.prefix.target_start)
    heads, steps = _choice("heads", heads, n_heads), _choice("steps", steps, n_steps)
    keep = _keep(kept, heads, steps, out, columns)
    _, weights = forward(model.lm, **inputs, need_attention=keep)
    return _in_order(weights, kept)


@torch.no_grad()
def text_attention(
    model: StageModel,
    out: Generation | Batch,
    *,
    row: int = 0,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> tuple[Float[Tensor, "layer head S_target L"], int] | None:
    """Cross-attention from the steps of the target to the words of the description.

    Text is no part of the prefix: every layer reads it in a softmax of its own, which sums to 1.
    Behind the words stands padding, vectors of zeros that are attended to: it is where a head looks
    that reads nothing.

    Args:
        as for `attention`.

    Returns:
        (weights, number of words): columns from there on are padding. None without a description.
        MusicGen counts pieces of words, T5's end of text included.
    """
    inputs, n_steps = _inputs(model, out, row), _n_steps(out)
    if inputs["text"] is None:
        return None
    n_layers, n_heads = _sizes(model)
    kept = _choice("layers", layers, n_layers)
    heads, steps = _choice("heads", heads, n_heads), _choice("steps", steps, n_steps)
    keep = _keep(kept, heads, steps, out, slice(None))
    _, weights = forward(model.lm, **inputs, need_text_attention=keep)
    return _in_order(weights, kept), int(inputs["text_mask"].sum())


# --- rows and columns as frames ------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where things stand in the columns and rows of a row's attention."""

    start: int  # column of the first step, which holds special tokens only; padding lies before it
    n_context: int  # frames; the context's frame j is column start + 1 + j
    token: int | None  # column of the context token; None: this row has no context
    n_target: int  # frames; frame i is row i, and K - 1 more rows finish the late codebooks

    @property
    def context(self) -> slice:
        """Columns of the context."""
        return slice(self.start + 1, self.start + 1 + self.n_context)


def layout(out: Generation | Batch, row: int = 0) -> Layout:
    """Where start, context and token stand in the columns of one row of a batch."""
    _check_row(out, row)
    width = out.prefix.target_start - 1  # frames of the longest context and the token
    start = int(out.prefix.attention_mask[row].int().argmax())
    has_context = start < width
    return Layout(
        start=start,
        n_context=width - 1 - start if has_context else 0,
        token=width if has_context else None,
        n_target=out.prefix.n_target_frames,
    )


def frame_attention(
    att: Float[Tensor, "layer head S_target S_prefix"], out: Generation | Batch, row: int = 0
) -> Float[Tensor, "layer head T Tc"]:
    """Attention from frame to frame, both counted from 0 where the music begins.

    Frame t of the target is where codebook 0 reads it; what it helps to write is frame t + 1.
    Start, token, padding and the last rows are cut off.

    Args:
        att: of all steps (`attention` without steps=).

    Raises:
        StageLiteError: this row has no context, or att has other steps than `out`.
    """
    where = _checked_layout(att, out, row)
    if where.n_context == 0:
        raise StageLiteError(
            f"row {row} has no context: there is nothing to look at; expected a generation with "
            "context="
        )
    return att[:, :, : where.n_target, where.context]


def shares(
    att: Float[Tensor, "layer head S_target S_prefix"], out: Generation | Batch, row: int = 0
) -> dict[str, Float[Tensor, "layer head"]]:
    """Where each head's attention goes, in the mean over the target's frames; they sum to 1.

    Returns:
        "context", "token", "start" (the first step: where many heads look that look for nothing)
        and "own_past" (the target's own steps before, and the step itself).
    """
    means = shares_by_frame(att, out, row).mean(-1)
    return dict(zip(("context", "token", "start", "own_past"), means, strict=True))


def shares_by_frame(
    att: Float[Tensor, "layer head S_target S_prefix"], out: Generation | Batch, row: int = 0
) -> Float[Tensor, "place layer head T"]:
    """The same for every frame of the target: context, token, start, own past, in this order."""
    where = _checked_layout(att, out, row)
    frames = att[:, :, : where.n_target]
    token = torch.zeros_like(frames[..., 0]) if where.token is None else frames[..., where.token]
    own_past = 1 - frames.sum(-1)
    return torch.stack(
        [frames[..., where.context].sum(-1), token, frames[..., where.start], own_past]
    )


# --- alignment -----------------------------------------------------------------------------------


class Diagonal(NamedTuple):
    """How much of what a head gives to the context it gives to its own time, beside chance."""

    score: Float[Tensor, "layer head"]  # 0 to 1; NaN where a head gives the context nothing
    chance: Float[Tensor, "layer head"]  # the same with the target's frames exchanged at random


def diagonal(
    frames: Float[Tensor, "layer head T Tc"],
    frame_rate: float,
    tolerance_s: float = TOLERANCE_S,
    lag_s: float = 0.0,
) -> Diagonal:
    """The share of a head's attention to the context that lies near the target's own time.

    Chance is what the same columns, looked at from exchanged rows, would score: a head that always
    looks at the loudest beat of the context is not aligned, and this says so. For a head that looks
    everywhere alike both are (2 tolerance_s frame_rate + 1) / Tc, less at the ends.

    Args:
        frames: from `frame_attention`; only frames that have their time in the context count.
        frame_rate: frames per second.
        tolerance_s: seconds to either side that are near.
        lag_s: look for a diagonal so many seconds later in the context than its own time; negative
            is earlier.

    Raises:
        StageLiteError: a tolerance below 0, or no frame of the target has such a time.
    """
    if not 0 <= tolerance_s < float("inf"):
        raise StageLiteError(f"tolerance_s is {tolerance_s}: expected seconds from 0 on")
    n_target, n_context = frames.shape[2:]
    lag, near = round(lag_s * frame_rate), round(tolerance_s * frame_rate)
    first, last = max(0, -lag), min(n_target, n_context - lag)
    if first >= last:
        raise StageLiteError(
            f"no frame of the target has its time {lag_s:+g} s in a context of "
            f"{n_context / frame_rate:g} s; expected a smaller lag_s"
        )
    frames = frames[:, :, first:last].double()
    rows = torch.arange(first, last, device=frames.device)[:, None] + lag
    band = (torch.arange(n_context, device=frames.device) - rows).abs() <= near  # [T, Tc]
    of_row, of_column = frames.sum(3), frames.sum(2)  # [layer, head, T], [layer, head, Tc]
    total = of_row.sum(-1)  # [layer, head]
    hit = (frames * band).sum((2, 3)) / total
    chance = torch.einsum("lht,tc,lhc->lh", of_row, band.double(), of_column) / total**2
    return Diagonal(hit.float(), chance.float())


def lag_profile(
    frames: Float[Tensor, "layer head T Tc"],
) -> tuple[list[int], Float[Tensor, "layer head lag"]]:
    """How much attention lies on each diagonal, in multiples of what chance puts there.

    1 everywhere: where a head looks does not depend on when. A peak at 0: it looks at its own time.
    Peaks a bar apart: it looks at the same place in other bars.

    Args:
        frames: from `frame_attention`.

    Returns:
        (lags in frames, profile): lag d compares frame t of the target with frame t + d of the
        context. Diagonals shorter than a quarter of the longest are left out.
    """
    n_target, n_context = frames.shape[2:]
    frames = frames.double()
    of_row, of_column = frames.sum(3), frames.sum(2)
    total = of_row.sum(-1)
    lags, ratios = [], []
    for lag in range(1 - n_target, n_context):
        on_it = frames.diagonal(lag, 2, 3)  # [layer, head, length]
        length = on_it.shape[-1]
        if length < LEAST_SHARE * min(n_target, n_context):
            continue
        t, c = max(0, -lag), max(0, lag)
        by_chance = (of_row[..., t : t + length] * of_column[..., c : c + length]).sum(-1) / total
        lags.append(lag)
        ratios.append(on_it.sum(-1) / by_chance)
    return lags, torch.stack(ratios, dim=-1).float()


def head_table(
    model: StageModel, out: Generation | Batch, *, tolerance_s: float = TOLERANCE_S
) -> DataFrame:
    """One line per head: does it align, and where does it look? The mean over rows with a context.

    Returns:
        Columns layer, head; diagonal and chance (see `diagonal`), lag_s (the best lag of the mean
        `lag_profile`: of interest where diagonal is above chance); context, token, start, own_past
        (see `shares`); text: of the cross-attention, what goes to words and not to their padding,
        NaN without a description.

    Raises:
        StageLiteError: no row has a context.
    """
    import pandas as pd

    rows = [b for b in range(len(out.prefix.sequence)) if layout(out, b).n_context]
    if not rows:
        raise StageLiteError("no row has a context; expected a generation with context=")
    found: dict[str, list[Tensor]] = {}
    profiles: dict[int, list[Tensor]] = {}
    for b in rows:
        att = attention(model, out, row=b)
        frames = frame_attention(att, out, b)
        score, chance = diagonal(frames, model.frame_rate, tolerance_s)
        values = {"diagonal": score, "chance": chance, **shares(att, out, b)}
        text = text_attention(model, out, row=b)
        values["text"] = (
            torch.full_like(score, torch.nan)
            if text is None
            else text[0][:, :, : out.prefix.n_target_frames, : text[1]].sum(-1).mean(-1)
        )
        for name, value in values.items():
            found.setdefault(name, []).append(value)
        for lag, value in zip(*_by_lag(frames), strict=True):
            profiles.setdefault(lag, []).append(value)
    columns = {name: torch.stack(values).nanmean(0).cpu() for name, values in found.items()}
    lags = list(profiles)
    best = torch.stack([torch.stack(v).nanmean(0) for v in profiles.values()]).nan_to_num(-1)
    lag_s = torch.tensor(lags, dtype=torch.float64)[best.argmax(0).cpu()] / model.frame_rate
    n_layers, n_heads = _sizes(model)
    table = pd.DataFrame(
        [(layer, head) for layer in range(n_layers) for head in range(n_heads)],
        columns=["layer", "head"],
    )
    for name in ("diagonal", "chance"):
        table[name] = columns.pop(name).flatten().numpy()
    table["lag_s"] = lag_s.flatten().numpy()
    for name, value in columns.items():
        table[name] = value.flatten().numpy()
    return table


# --- helpers -------------------------------------------------------------------------------------


def _by_lag(frames: Tensor) -> tuple[list[int], Tensor]:
    lags, profile = lag_profile(frames)
    return lags, profile.movedim(-1, 0)  # [lag, layer, head]


def _inputs(model: StageModel, out: Generation | Batch, row: int) -> dict[str, Tensor | None]:
    """What `forward` needs to see one row of `out` again."""
    from .text import encode_text

    _check_row(out, row)
    sequence = out.inputs if isinstance(out, Batch) else out.sequence
    description = out.descriptions[row]
    if sequence.shape[1] != model.n_q:
        raise StageLiteError(
            f"out has {sequence.shape[1]} codebooks, the model {model.n_q}: "
            "expected what this model has written"
        )
    if sequence.shape != out.prefix.sequence.shape:
        raise StageLiteError(
            f"out.sequence has the shape {list(sequence.shape)}, out.prefix one of "
            f"{list(out.prefix.sequence.shape)}: expected one pass over one sequence"
        )
    text, text_mask = encode_text(model.lm, [description])
    one = slice(row, row + 1)
    return {
        "sequence": sequence[one].to(model.device),
        "attention_mask": out.prefix.attention_mask[one].to(model.device),
        "positions": out.prefix.positions[one].to(model.device),
        "text": text,
        "text_mask": text_mask,
        "first_step": sequence.shape[2],  # no logits
    }


def _keep(
    layers: list[int], heads: list[int], steps: list[int], out: Generation | Batch, columns: slice
) -> Keep:
    """Of the chosen layers [head, step, column], copied, so that the rest can be freed."""
    rows = torch.tensor(steps) + out.prefix.target_start

    def keep(layer: int, weights: Tensor) -> Tensor | None:  # [1, heads, S, S_keys]
        if layer not in layers:
            return None
        chosen = weights[0, :, :, columns]  # a view
        index = torch.tensor(heads, device=weights.device)[:, None]
        return chosen[index, rows.to(weights.device)].float()

    return keep


def _in_order(weights: Tensor, layers: list[int]) -> Tensor:
    """The kept layers come as the model has them; here as they were asked for."""
    if layers == sorted(layers):
        return weights
    return weights[[sorted(layers).index(layer) for layer in layers]]


def _sizes(model: StageModel) -> tuple[int, int]:
    layers = model.lm.transformer.layers
    return len(layers), inside(layers[0].self_attn).num_heads


def _n_steps(out: Generation | Batch) -> int:
    return out.prefix.sequence.shape[2] - out.prefix.target_start


def _choice(name: str, chosen: Sequence[int] | None, size: int) -> list[int]:
    """Checked indices, all of them for None."""
    if chosen is None:
        return list(range(size))
    if isinstance(chosen, Integral):
        raise StageLiteError(f"{name} is {chosen}: expected a list, such as [{chosen}]")
    chosen = list(chosen)
    for one in chosen:
        if not isinstance(one, Integral) or isinstance(one, bool) or not 0 <= one < size:
            raise StageLiteError(f"{name} holds {one!r}: expected whole numbers in [0, {size - 1}]")
    if not chosen or len(set(chosen)) < len(chosen):
        raise StageLiteError(f"{name} is {chosen}: expected at least one, and none twice")
    return [int(one) for one in chosen]


def _check_row(out: Generation | Batch, row: int) -> None:
    if not isinstance(out, Generation | Batch):
        raise StageLiteError(
            f"out is a {type(out).__name__}: expected what model.generate returned, or a Batch"
        )
    n_rows = len(out.prefix.sequence)
    if not isinstance(row, Integral) or not 0 <= row < n_rows:
        raise StageLiteError(f"row is {row!r}: expected one of the {n_rows} rows, from 0 on")


def _checked_layout(att: Tensor, out: Generation | Batch, row: int) -> Layout:
    where, expected = layout(out, row), (_n_steps(out), out.prefix.target_start)
    if tuple(att.shape[2:]) != expected:
        raise StageLiteError(
            f"att has {att.shape[2]} steps and {att.shape[3]} columns, out has {expected[0]} and "
            f"{expected[1]}: expected stage_lite.attention(model, out) of all steps"
        )
    return where
