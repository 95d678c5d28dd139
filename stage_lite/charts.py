"""Figures of the lessons: codes as a grid, curves, bars, points in a plane, heat maps.

As in plots.py, each leaves through `plots.render` with a description made from what is drawn.
Okabe-Ito colours for things that are told apart, viridis for amounts.

Notebook: 01_tokenization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .plots import BAR, BEAT, GREY, Figure, new_figure, render

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SPECIAL, TOKEN = "#E5E5E5", "#000000"
NAMED = 40  # columns up to which a grid writes its numbers


def token_grid(
    ids: Int[Tensor, "K S"],
    special_token_id: int | None = None,
    context_token_id: int | None = None,
    *,
    groups: Mapping[str, Bool[Tensor, "K S"]] | None = None,
    caption: str = "",
    step_name: str = "step",
) -> Figure:
    """Codes as a grid, codebook 0 on top: brightness is the code's number, tokens stand out.

    Args:
        ids: codes of one row; special and context tokens if there are any.
        special_token_id: drawn light grey with a dot.
        context_token_id: drawn black with a C.
        groups: name -> where it is true: these places are drawn in a colour of their own.
        caption: below the picture.
        step_name: of a column: "step" of a sequence, "frame" of codes.
    """
    from matplotlib import colormaps, colors

    if ids.numel() == 0:
        raise StageLiteError("token_grid got no codes to draw; expected at least one step")
    n_q, n_steps = ids.shape
    values = ids.numpy().astype(float)
    special = values == (np.nan if special_token_id is None else special_token_id)
    token = values == (np.nan if context_token_id is None else context_token_id)
    code = ~special & ~token
    top = max(values[code].max(initial=1.0), 1.0)
    painted = np.zeros((n_q, n_steps, 3))
    painted[:] = colormaps["viridis"](0.25 + 0.75 * values / top)[..., :3]
    members = {name: np.asarray(place, dtype=bool) for name, place in (groups or {}).items()}
    for colour, place in zip(PALETTE, members.values(), strict=False):
        painted[place & code] = colors.to_rgb(colour)
    painted[special], painted[token] = colors.to_rgb(SPECIAL), colors.to_rgb(TOKEN)
    wide = n_steps > NAMED
    canvas, (axis,) = new_figure(1, height=0.5 + 0.32 * n_q, width=9.0 if wide else _width(n_steps))
    axis.imshow(painted, aspect="auto", interpolation="nearest")
    if not wide:
        for k in range(n_q):
            for s in range(n_steps):
                text = "·" if special[k, s] else "C" if token[k, s] else f"{int(values[k, s])}"
                dark = painted[k, s] @ (0.3, 0.6, 0.1) < 0.55
                axis.text(s, k, text, ha="center", va="center", fontsize=7,
                          color="white" if dark else "black")  # fmt: skip
    axis.set_yticks(range(n_q), [f"codebook {k}" for k in range(n_q)], fontsize=8)
    axis.set_xlabel(step_name)
    if members:
        from matplotlib.patches import Patch

        patches = [Patch(color=c, label=n) for c, n in zip(PALETTE, members, strict=False)]
        axis.legend(handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=8,
                    frameon=False)  # fmt: skip
    said = [f"Grid of {n_q} codebooks by {n_steps} {step_name}s"]
    said += [f"{name} in {_places(place & code)}" for name, place in members.items()]
    if special.any():
        said.append(f"special token in {_places(special)}")
    if token.any():
        first = [int(np.flatnonzero(row)[0]) if row.any() else -1 for row in token]
        said.append(f"context token at {step_name}s {first} of codebooks 0 to {n_q - 1}")
    if n_steps <= NAMED and n_q <= 8:
        kinds = zip(values.tolist(), special.tolist(), token.tolist(), strict=True)
        rows = (" ".join(map(_letter, *kind)) for kind in kinds)
        said.append("row by row: " + " / ".join(rows))
    return render(canvas, "; ".join(said) + ".", caption)


def curves(
    lines: Mapping[str, Sequence[float] | Float[ndarray, "_"]],
    x: Sequence[float] | ndarray | Mapping[str, Sequence[float]] | None = None,
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    log_y: bool = False,
    caption: str = "",
) -> Figure:
    """Lines over one axis, with horizontal levels to compare with.

    Args:
        lines: name -> values.
        x: of all lines, or name -> those of each; None counts from 0.
        x_label, y_label: with their unit.
        levels: name -> height of a dashed line.
        log_y: logarithmic height.
        caption: below the picture.
    """
    if not lines:
        raise StageLiteError("curves got nothing to draw; expected at least one line")
    canvas, (axis,) = new_figure(1, height=2.4, width=7.5)
    said = []
    for colour, (name, values) in zip(_colours(len(lines)), lines.items(), strict=True):
        values = np.asarray(values, dtype=float)
        places = x[name] if isinstance(x, Mapping) else x
        at = np.arange(len(values)) if x is None else np.asarray(places, float)[: len(values)]
        axis.plot(at, values, color=colour, label=name, linewidth=1.5,
                  marker="o" if len(values) < 12 else "", markersize=4)  # fmt: skip
        said.append(
            f"{name} from {values[0]:.3g} at {at[0]:g} to {values[-1]:.3g} at {at[-1]:g}"
            if len(values)
            else f"{name} is empty"
        )
    for name, height in (levels or {}).items():
        axis.axhline(height, color=GREY, linestyle="--", linewidth=1)
        axis.annotate(f" {name}", (1, height), xycoords=("axes fraction", "data"), fontsize=8,
                      va="center", color=BAR)  # fmt: skip
        said.append(f"dashed, {name}: {height:.3g}")
    if log_y:
        axis.set_yscale("log")
    marks = x.values() if isinstance(x, Mapping) else [x]
    if x is None or all(float(at).is_integer() for at in np.hstack(list(marks))):
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}  # hides no line
    if len(lines) > 1:
        axis.legend(fontsize=8, frameon=False, **(above if len(lines) > 3 else {}))
    return render(canvas, f"{y_label} over {x_label}: " + "; ".join(said) + ".", caption)


def bars(values: Mapping[str, float], label: str, caption: str = "") -> Figure:
    """One horizontal bar per name, with its number; 0 is on the axis."""
    if not values:
        raise StageLiteError("bars got nothing to draw; expected at least one bar")
    canvas, (axis,) = new_figure(1, height=0.32 * len(values) + 0.4, width=7.0)
    names, numbers = list(values)[::-1], [float(v) for v in values.values()][::-1]
    axis.barh(names, numbers, color=PALETTE[0], height=0.6)
    span = max(*numbers, 0.0) - min(*numbers, 0.0) or 1.0
    for row, number in enumerate(numbers):
        axis.text(max(number, 0.0) + 0.01 * span, row, f"{number:.3g}", va="center", fontsize=8)
    axis.axvline(0, color=BAR, linewidth=0.8)
    axis.set_xlim(min(*numbers, 0.0) - 0.02 * span, max(*numbers, 0.0) + 0.12 * span)
    axis.set_xlabel(label)
    said = ", ".join(f"{name} {float(v):.3g}" for name, v in values.items())
    return render(canvas, f"Bars of {label}: {said}.", caption)


def intervals(
    estimates: Mapping[str, Mapping[str, float]],
    label: str,
    *,
    line: float | None = None,
    caption: str = "",
) -> Figure:
    """A point with its interval per name, below one another.

    Args:
        estimates: name -> "value", "low" and "high", as `metrics.bootstrap` gives them; where low
            is NaN the point stands alone.
        label: of the axis, with the unit.
        line: where a vertical line stands to compare with, such as 0.
        caption: below the picture.
    """
    if not estimates:
        raise StageLiteError("intervals got nothing to draw; expected at least one estimate")
    canvas, (axis,) = new_figure(1, height=0.32 * len(estimates) + 0.4, width=7.0)
    said = []
    for place, (name, estimate) in enumerate(estimates.items()):
        value, low, high = (float(estimate[key]) for key in ("value", "low", "high"))
        known = not np.isnan(low)
        reach = [[value - low], [high - value]] if known else None
        axis.errorbar(value, place, xerr=reach, fmt="o", color=PALETTE[0], capsize=3, markersize=5)
        said.append(f"{name} {value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if known else ""))
    if line is not None:
        axis.axvline(line, color=GREY, linestyle="--", linewidth=1)
        said.append(f"dashed line at {line:g}")
    axis.set_yticks(range(len(estimates)), list(estimates), fontsize=9)
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel(label)
    return render(canvas, f"{label}, points with intervals: " + ", ".join(said) + ".", caption)


def quantisation(
    points: Float[Tensor, "N 2"],
    codebooks: Sequence[Float[Tensor, "_ 2"]],
    codes: Int[Tensor, "K N"],
    caption: str = "",
) -> Figure:
    """Points of a plane and the way to each: one arrow per codebook, from entry to entry.

    Args:
        points: what is quantised.
        codebooks: the entries of each; later ones are added to what was chosen before.
        codes: the entries that were chosen.
        caption: below the picture.
    """
    if not len(points):
        raise StageLiteError("quantisation got no points to draw; expected at least one")
    canvas, (axis,) = new_figure(1, height=4.2, width=5.2)
    axis.scatter(*points.numpy().T, marker="x", color="black", s=40, zorder=4, label="points")
    axis.scatter(*codebooks[0].numpy().T, color=PALETTE[0], s=30, label="codebook 0", zorder=3)
    reached = np.zeros((len(points), 2))
    said = []
    for k, (book, chosen) in enumerate(zip(codebooks, codes, strict=True)):
        step = book[chosen].numpy()
        if k:
            colour = PALETTE[k % len(PALETTE)]
            for start, move in zip(reached, step, strict=True):
                axis.annotate("", start + move, start, zorder=2,
                              arrowprops={"arrowstyle": "->", "color": colour})  # fmt: skip
            axis.plot([], [], color=colour, label=f"+ codebook {k}")
        reached = reached + step
        left = float(np.linalg.norm(points.numpy() - reached, axis=1).mean())
        said.append(f"with {k + 1} of {len(codebooks)} codebooks {left:.2f}")
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    alt = f"{len(points)} points and the entries chosen for them; mean distance that is left: "
    return render(canvas, alt + ", ".join(said) + ".", caption)


def heat(
    values: Num[Tensor, "n m"] | ndarray,
    *,
    x_label: str,
    y_label: str,
    rows: Sequence[str] = (),
    lines: Sequence[float] = (),
    caption: str = "",
) -> Figure:
    """A matrix in colours, row 0 on top, with its scale beside it.

    Args:
        values: finite.
        x_label, y_label: what columns and rows are.
        rows: a name for each row.
        lines: columns at which a vertical line stands.
        caption: below the picture.
    """
    values = np.asarray(values, dtype=float)
    if not values.size:
        raise StageLiteError("heat got nothing to draw; expected at least one row and column")
    canvas, (axis,) = new_figure(1, height=min(4.0, max(1.2, 0.3 * len(values))), width=8.0)
    image = axis.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
    canvas.colorbar(image, ax=axis, pad=0.01)
    for line in lines:
        axis.axvline(line - 0.5, color=BEAT, linewidth=1)
    if len(rows):
        axis.set_yticks(range(len(values)), rows, fontsize=8)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    row, column = np.unravel_index(values.argmax(), values.shape)
    alt = (
        f"Heat map of {values.shape[0]} rows ({y_label}) by {values.shape[1]} columns ({x_label}), "
        f"values {values.min():.3g} to {values.max():.3g}, highest in row {row}, column {column}."
    )
    return render(canvas, alt, caption)


def _places(where: ndarray) -> str:
    n = int(where.sum())
    return f"{n} place" if n == 1 else f"{n} places"


def _letter(value: float, special: bool, token: bool) -> str:
    return "." if special else "C" if token else f"{int(value)}"


def _width(n_steps: int) -> float:
    return min(9.0, 1.6 + 0.34 * n_steps)


def _colours(n: int) -> list[Any]:
    return [PALETTE[i % len(PALETTE)] for i in range(n)]
