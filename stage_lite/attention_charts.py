"""The attention of heads as the model has it: all columns of the sequence, region by region.

`plots.attention_map` shows what goes to the context, in seconds. Here the rest is in the picture
too: start, context token and the target's own past.

Notebook: 06_attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .attention import layout
from .batch import Batch
from .errors import StageLiteError
from .generation import Generation
from .plots import Figure, new_figure, render

BEAT, BAR, BORDER = "#FFFFFF66", "#FFFFFFCC", "#E69F00"


def attention_regions(
    heads: Mapping[str, Float[Tensor, "T S"]],
    out: Generation | Batch,
    frame_rate: float,
    beat_times: Float[ndarray, "n"] | Sequence[float] = (),
    downbeat_times: Float[ndarray, "m"] | Sequence[float] = (),
    row: int = 0,
    caption: str = "",
) -> Figure:
    """Heads below one another: steps of the target downwards, what they look at to the right.

    Lines are beats, strong ones begin bars: on both axes, in the context and in the target. Colours
    grow with the square root of the attention, each head by its own highest 0.2 %.

    Args:
        heads: name -> a head of `stage_lite.attention(model, out, whole=True)`.
        out: what was looked at.
        frame_rate: frames per second.
        beat_times, downbeat_times: seconds from the start of context and target.
        row: of `out`.
        caption: below the picture.

    Raises:
        StageLiteError: nothing to draw, a row without a context, or heads of other sizes.
    """
    if not heads:
        raise StageLiteError("attention_regions got nothing to draw; expected at least one head")
    where = layout(out, row)
    if where.token is None:
        raise StageLiteError("this row has no context; expected a generation with context=")
    first = where.token + 1  # column of the target's first step
    n_target = where.n_target
    for name, weights in heads.items():
        if weights.shape[0] < n_target or weights.shape[1] < first + n_target:
            raise StageLiteError(
                f"{name!r} has {weights.shape[0]} rows and {weights.shape[1]} columns; expected at "
                f"least {n_target} rows and {first + n_target} columns: attention(..., whole=True)"
            )
    canvas, axes = new_figure(len(heads), height=2.3)
    grid = [(np.asarray(beat_times) * frame_rate, BEAT, 0.5),
            (np.asarray(downbeat_times) * frame_rate, BAR, 0.9)]  # fmt: skip
    said = []
    for axis, (name, weights) in zip(axes, heads.items(), strict=True):
        values = weights[:n_target, : first + n_target].detach().float().cpu().numpy()
        top = max(float(np.quantile(values, 0.998)), 1e-9) ** 0.5
        axis.imshow(np.sqrt(values), cmap="viridis", vmin=0, vmax=top, aspect="auto",
                    interpolation="antialiased")  # fmt: skip
        for frames, colour, width in grid:
            for frame in frames:
                if frame < n_target:
                    axis.axhline(frame, color=colour, linewidth=width)
                    axis.axvline(first + frame, color=colour, linewidth=width)
                if frame < where.n_context:
                    axis.axvline(where.start + 1 + frame, color=colour, linewidth=width)
        for border in (where.token - 0.5, where.token + 0.5):
            axis.axvline(border, color=BORDER, linewidth=0.9)
        axis.set_ylim(n_target - 0.5, -0.5)
        axis.set_yticks([0, n_target - 1], ["0", f"{n_target / frame_rate:g}"])
        axis.set_ylabel("target, s")
        axis.set_title(name, loc="left", fontsize=9)
        parts = {"context": values[:, where.context], "context token": values[:, [where.token]],
                 "target itself": values[:, first:]}  # fmt: skip
        shares = ", ".join(f"{part} {v.sum(1).mean():.0%}" for part, v in parts.items())
        said.append(f"{name}: {shares}")
    middle = (where.start + 1 + where.n_context / 2, first + n_target / 2)
    seconds = [where.n_context / frame_rate, n_target / frame_rate]
    axes[-1].set_xticks(
        [middle[0], where.token, middle[1]],
        [f"context, {seconds[0]:g} s", "token", f"target, {seconds[1]:g} s"],
    )
    axes[-1].tick_params(length=0)
    alt = (
        f"Attention of {len(heads)} heads, from {n_target} steps of the target to "
        f"{first + n_target} steps of context, token and target. "
    )
    return render(canvas, alt + "; ".join(said) + ".", caption)
