"""Every figure of the notebooks and of the demo, each with its own description in words.

A figure leaves this file through one door, `render`: a PNG inside `<figure>` with alt text and
caption. (JupyterLab drops the alt text of plain PNG output.) The alt text is made from the data
that are drawn, so it is as true as the picture. Colours: Okabe and Ito's, which colour-blind
readers can tell apart; every stem keeps its own. No pyplot: nothing global is touched.

Notebook: 00_quickstart.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .files import write_atomic
from .onsets import TOLERANCE_S, beat_position, beats_hit

# Okabe and Ito 2008, "Color Universal Design".
COLOURS = {
    "drums": "#D55E00",
    "bass": "#0072B2",
    "keys": "#009E73",
    "guitar": "#E69F00",
    "other": "#CC79A7",
    "mix": "#56B4E9",
    "click": "#000000",
}
GREY, BEAT, BAR = "#777777", "#AAAAAA", "#333333"
DPI = 110
BUCKETS = 1500  # columns of a drawn waveform


@dataclass(frozen=True, repr=False)
class Figure:
    """A finished picture: shown by a notebook, written by `save`, embedded by a page."""

    png: bytes
    alt: str
    caption: str = ""

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.png).decode("ascii")
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<figure style="margin:0 0 1em 0"><img alt="{html.escape(self.alt)}" '
            f'src="data:image/png;base64,{image}" style="max-width:100%;height:auto;'
            f'background:#fff">{caption}</figure>'
        )

    def save(self, path: str | Path) -> Path:
        """Write the PNG, whole or not at all."""
        write_atomic(path, self.png)
        return Path(path)

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"


def render(figure: Any, alt: str, caption: str = "") -> Figure:
    """The one way out: a matplotlib Figure becomes a picture with its description.

    Args:
        figure: made by `new_figure` (or any matplotlib.figure.Figure).
        alt: what a reader who cannot see it needs to know; not empty.
        caption: stands below the picture for everyone.
    """
    if not alt.strip():
        raise StageLiteError("a figure came without alt text; expected a sentence on what it shows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return Figure(buffer.getvalue(), " ".join(alt.split()), caption)


def new_figure(rows: int = 1, height: float = 1.1, width: float = 9.0) -> tuple[Any, list[Any]]:
    """A matplotlib Figure without pyplot, and its axes from top to bottom.

    Args:
        rows: axes below one another, with one time axis.
        height: of each row, inches.
        width: of the whole, inches.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, rows * height + 0.5), layout="constrained")
    axes = canvas.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return canvas, list(axes)


def waveforms(
    wavs: Mapping[str, Float[Tensor, "C _"]],
    sample_rate: int,
    beat_times: Float[ndarray, "n"] | Sequence[float] = (),
    downbeat_times: Float[ndarray, "m"] | Sequence[float] = (),
    onset_times: Mapping[str, Float[ndarray, "_"]] | None = None,
    caption: str = "",
) -> Figure:
    """Waveforms below one another over the beat grid, with onsets as ticks on top.

    Args:
        wavs: name -> wav; a name that begins with a stem's gets its colour ("drums, generated").
            All rows have one scale, so that loudness compares.
        sample_rate: Hz.
        beat_times, downbeat_times: seconds from the start; thin and thick lines.
        onset_times: name -> seconds, for some of the rows; on a beat filled, elsewhere hollow.
        caption: below the picture.
    """
    if not wavs:
        raise StageLiteError("waveforms got nothing to draw; expected at least one wav")
    onset_times, beats = onset_times or {}, np.asarray(beat_times, dtype=float)
    canvas, axes = new_figure(len(wavs))
    top = max(float(wav.abs().max()) for wav in wavs.values() if wav.numel()) or 1.0
    longest_s = max(wav.shape[-1] for wav in wavs.values()) / sample_rate
    said = []
    for axis, (name, wav) in zip(axes, wavs.items(), strict=True):
        colour = colour_of(name)
        _draw_grid(axis, beats, downbeat_times)
        time, low, high = _envelope(wav, sample_rate)
        axis.fill_between(time, low, high, color=colour, linewidth=0.4, edgecolor=colour)
        axis.set_ylim(-1.05 * top, 1.45 * top)
        axis.set_yticks([])
        axis.set_title(name, loc="left", fontsize=9)
        if name in onset_times:
            onsets = onset_times[name]
            near = _near(onsets, beats)
            axis.scatter(onsets, np.full(len(onsets), 1.22 * top), marker="v", s=26,
                         color=[colour if n else "white" for n in near], edgecolors=colour,
                         linewidths=0.8, zorder=3)  # fmt: skip
            hit = f", {beats_hit(onsets, beats):.0%} of the beats hit" if len(beats) else ""
            said.append(f"{name}: {len(onsets)} onsets{hit}")
    axes[0].set_xlim(0, longest_s)
    axes[-1].set_xlabel("seconds; lines are beats, dark lines begin bars")
    alt = f"Waveforms of {_list(wavs)} over {longest_s:.1f} s, with {len(beats)} beats. "
    return render(canvas, alt + "; ".join(said) + ("." if said else ""), caption)


def beat_positions(
    onset_times: Mapping[str, Float[ndarray, "_"]],
    beat_times: Float[ndarray, "n"] | Sequence[float],
    caption: str = "",
) -> Figure:
    """Where in the beat the onsets are: a row of dots per name, from 1/4 before to 3/4 after it.

    Dots in columns mean that the onsets keep to the beat; an even band means that they do not.
    """
    if not onset_times:
        raise StageLiteError("beat_positions got nothing to draw; expected at least one row")
    canvas, axes = new_figure(len(onset_times), height=0.75, width=7.0)
    said = []
    for axis, (name, onsets) in zip(axes, onset_times.items(), strict=True):
        place = beat_position(onsets, beat_times)
        # The height only keeps dots apart: order in time, from bottom to top.
        axis.scatter((place + 0.25) % 1 - 0.25, np.linspace(0, 1, len(place)), s=14, alpha=0.7,
                     color=colour_of(name), linewidths=0)  # fmt: skip
        axis.set_yticks([])
        axis.set_ylim(-0.15, 1.15)
        axis.set_title(name, loc="left", fontsize=9)
        for line in (0.0, 0.25, 0.5):
            axis.axvline(line, color=BAR if line == 0 else BEAT, linewidth=0.8, zorder=0)
        near = np.abs(place) < 1 / 16
        share = f"{near.mean():.0%}" if len(place) else "none"
        said.append(
            f"{name}: {len(place)} onsets, {share} within a sixteenth of a beat of the beat"
        )
    axes[-1].set_xlim(-0.25, 0.75)
    axes[-1].set_xticks([-0.25, 0.0, 0.25, 0.5, 0.75], ["-1/4", "beat", "+1/4", "+1/2", "+3/4"])
    axes[-1].set_xlabel("position of each onset in its beat")
    return render(canvas, "Onsets within the beat. " + "; ".join(said) + ".", caption)


def lock_bars(
    lock: Mapping[str, float | None], caption: str = "", label: str = "beat lock"
) -> Figure:
    """One bar of `onsets.beat_lock` per name; 0 is as if by chance, None (no onsets) is empty."""
    if not lock:
        raise StageLiteError("lock_bars got nothing to draw; expected at least one bar")
    canvas, (axis,) = new_figure(1, height=0.32 * len(lock) + 0.3, width=7.0)
    names = list(lock)[::-1]
    values = [lock[name] for name in names]
    axis.barh(names, [v or 0.0 for v in values], color=[colour_of(n) for n in names], height=0.6)
    for row, value in enumerate(values):
        text = "no onsets" if value is None else f"{value:.2f}"
        axis.text(max(value or 0.0, 0.0) + 0.02, row, text, va="center", fontsize=8)
    axis.axvline(0, color=BAR, linewidth=0.8)
    axis.set_xlim(min([-0.2] + [v for v in values if v is not None]), 1.15)
    axis.set_xlabel(f"{label}: 0 is chance, 1 is all on the grid")
    said = (f"{n} {'none' if v is None else f'{v:.2f}'}" for n, v in lock.items())
    return render(canvas, f"Bars of {label}: " + ", ".join(said) + ".", caption)


def attention_map(
    frames: Float[Tensor, "T Tc"],
    frame_rate: float,
    beat_times: Float[ndarray, "n"] | Sequence[float] = (),
    downbeat_times: Float[ndarray, "m"] | Sequence[float] = (),
    caption: str = "",
    top: float | None = None,
) -> Figure:
    """One head's attention, or a mean of heads, from the target (right) to the context (up).

    Beats are lines on both axes; the dotted line is the target's own time. Colours grow with the
    square root of the attention, so that faint lines show.

    Args:
        frames: `attention.frame_attention(att, out)[layer, head]`.
        frame_rate: frames per second.
        beat_times, downbeat_times: seconds from the start of context and target.
        top: attention of the brightest colour, to compare pictures; None: the map's highest 0.5 %.
    """
    from .attention import diagonal

    if not frames.numel():
        raise StageLiteError("attention_map got nothing to draw; expected at least one frame")
    score, chance = (float(v) for v in diagonal(frames[None, None], frame_rate))
    values = frames.detach().float().cpu().numpy()
    top = float(np.quantile(values, 0.995)) if top is None else top
    long_s, high_s = (n / frame_rate for n in values.shape)
    canvas, (axis,) = new_figure(1, height=5.0, width=6.2)
    image = axis.imshow(
        np.sqrt(values.T), origin="lower", extent=(0, long_s, 0, high_s), aspect="equal",
        cmap="viridis", vmin=0, vmax=max(top, 1e-9) ** 0.5, interpolation="antialiased",
    )  # fmt: skip
    for times, colour, width in (
        (beat_times, "#FFFFFF55", 0.5),
        (downbeat_times, "#FFFFFFBB", 0.9),
    ):
        for time in times:
            axis.axvline(time, color=colour, linewidth=width)
            axis.axhline(time, color=colour, linewidth=width)
    axis.plot([0, min(long_s, high_s)], [0, min(long_s, high_s)], ":", color="white", linewidth=0.6)
    axis.set(xlim=(0, long_s), ylim=(0, high_s), xlabel="target, seconds",
             ylabel="context, seconds")  # fmt: skip
    given = f"{values.sum(1).mean():.0%}"  # a faint map of a head that looks elsewhere looks grand
    axis.set_title(f"{given} of the attention goes to the context", loc="left", fontsize=9)
    bar = canvas.colorbar(image, ax=axis, shrink=0.8, label="attention of a step")
    ticks = np.linspace(0, 1, 5) * max(top, 1e-9) ** 0.5
    bar.set_ticks(ticks, labels=[f"{tick**2:.2g}" for tick in ticks])
    said = (
        f"Attention map from {long_s:.1f} s of target to {high_s:.1f} s of context, with "
        f"{len(beat_times)} beats. A step gives the context {given} of its "
        f"attention; {score:.0%} of that lies within 0.1 s of the target's own time, by chance "
        f"{chance:.0%}."
    )
    return render(canvas, said, caption)


def head_map(
    values: Float[Tensor, "layer head"], label: str, caption: str = "", top: float = 1.0
) -> Figure:
    """One number per head as a table of colours: layers downwards, heads to the right.

    Args:
        values: NaN is an empty field.
        label: what the numbers are.
        top: value of the brightest colour; the darkest is 0.
    """
    if not values.numel():
        raise StageLiteError("head_map got nothing to draw; expected at least one head")
    table = values.detach().float().cpu().numpy()
    n_layers, n_heads = table.shape
    canvas, (axis,) = new_figure(
        1, height=0.34 * n_layers + 0.7, width=max(3.2, 0.55 * n_heads + 2)
    )
    axis.imshow(table, cmap="viridis", vmin=0, vmax=top, aspect="auto")
    for (layer, head), value in np.ndenumerate(table):
        if np.isfinite(value):
            ink = "black" if value > 0.6 * top else "white"
            axis.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(range(n_heads))
    axis.set_yticks(range(n_layers))
    axis.set(xlabel=f"head; colour: {label}, 0 to {top:g}", ylabel="layer")
    known = np.argwhere(np.isfinite(table))
    best = sorted(known.tolist(), key=lambda at: -table[tuple(at)])[:3]
    said = ", ".join(f"layer {i} head {j} {table[i, j]:.2f}" for i, j in best) or "none"
    alt = f"{label} of {n_layers} layers of {n_heads} heads. Highest: {said}."
    return render(canvas, alt[0].upper() + alt[1:], caption)


def lag_profiles(
    lags: Sequence[int],
    profiles: Mapping[str, Float[Tensor, " lag"]],
    frame_rate: float,
    beat_s: float | None = None,
    beats_per_bar: int = 4,
    caption: str = "",
) -> Figure:
    """How often above chance a head looks so much later (or earlier) than the target's own time.

    Args:
        lags: in frames; profiles: name -> one number per lag; both from `attention.lag_profile`.
        frame_rate: frames per second.
        beat_s: seconds of a beat, for a grid of beats and bars.
    """
    if not profiles:
        raise StageLiteError("lag_profiles got nothing to draw; expected at least one profile")
    canvas, axes = new_figure(len(profiles))
    lag_s = np.asarray(lags) / frame_rate
    said = []
    for axis, (name, profile) in zip(axes, profiles.items(), strict=True):
        values = profile.detach().float().cpu().numpy()
        if beat_s:
            for beat in range(int(np.ceil(lag_s[0] / beat_s)), int(lag_s[-1] // beat_s) + 1):
                bar = beat % beats_per_bar == 0
                axis.axvline(beat * beat_s, color=BAR if bar else BEAT, zorder=0,
                             linewidth=0.9 if bar else 0.5)  # fmt: skip
        axis.plot(lag_s, values, color=COLOURS["bass"], linewidth=1.0)
        axis.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_ylim(0, None)
        axis.set_title(name, loc="left", fontsize=9)
        peak = int(np.nanargmax(values)) if np.isfinite(values).any() else None
        said.append(
            f"{name}: nothing" if peak is None
            else f"{name}: highest at {lag_s[peak]:+.2f} s, {values[peak]:.1f} times chance"
        )  # fmt: skip
    axes[-1].set_xlabel("looks so many seconds before (-) or behind (+) its own time; 1 is chance")
    return render(canvas, "Attention by lag. " + "; ".join(said) + ".", caption)


def head_effects(table: Any, caption: str = "") -> Figure:
    """Bars of what the context is worth to the model, whole and with heads cut, with intervals.

    Args:
        table: from `attention.head_effects`.
    """
    if not len(table):
        raise StageLiteError("head_effects got nothing to draw; expected at least one line")
    canvas, (axis,) = new_figure(1, height=0.34 * len(table) + 0.4, width=7.0)
    lines = table.iloc[::-1]
    colours = [GREY if "others" in name else COLOURS["bass"] for name in lines.index]
    axis.barh(list(lines.index), lines.gap, color=colours, height=0.6)
    sides = [(lines.gap - lines.low).clip(lower=0), (lines.high - lines.gap).clip(lower=0)]
    axis.errorbar(lines.gap, range(len(lines)), xerr=sides, fmt="none", ecolor=BAR, elinewidth=1,
                  capsize=2)  # fmt: skip
    axis.axvline(0, color=BAR, linewidth=0.8)
    axis.set_xlabel("loss with another song's context minus loss with the right one, nats")
    said = (f"{name} {line.gap:.2f}, {line.kept:.0%} kept" for name, line in table.iterrows())
    return render(canvas, "What the context is worth: " + "; ".join(said) + ".", caption)


def colour_of(name: str) -> str:
    """The colour of the first stem in a name; grey without one, and for "another song"."""
    words = re.findall(r"\w+", name.lower())
    if "another" in words:
        return GREY
    return next((COLOURS[word] for word in words if word in COLOURS), GREY)


def _draw_grid(axis: Any, beats: ndarray, downbeats: Sequence[float] | ndarray) -> None:
    for beat in beats:
        axis.axvline(beat, color=BEAT, linewidth=0.6, zorder=0)
    for downbeat in downbeats:
        axis.axvline(downbeat, color=BAR, linewidth=1.2, zorder=0)


def _envelope(wav: Float[Tensor, "C L"], sample_rate: int) -> tuple[ndarray, ndarray, ndarray]:
    """Lowest and highest sample of each column, and the column's time in seconds."""
    samples = wav.detach().cpu().mean(0).numpy()
    size = max(1, -(-len(samples) // BUCKETS))
    samples = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    return np.arange(len(samples)) * size / sample_rate, samples.min(1), samples.max(1)


def _near(onsets: ndarray, beats: ndarray) -> ndarray:
    if not len(beats):
        return np.zeros(len(onsets), dtype=bool)
    return np.abs(onsets[:, None] - beats[None]).min(1, initial=np.inf) <= TOLERANCE_S


def _list(names: Mapping[str, Any]) -> str:
    *most, last = names
    return f"{'; '.join(most)} and {last}" if most else last
