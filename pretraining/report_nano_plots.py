"""Pictures of the nano report; each function returns the picture's description in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

# Okabe and Ito's colours.
COLOURS = {
    "real": "#000000",
    "real_decoded": "#777777",
    "other": "#CC79A7",
    "none": "#E69F00",
    "right": "#0072B2",
    "shuffled": "#D55E00",
}
SCORES = {"beat_f1": "beat F1", "onset_alignment": "onset alignment (0: chance)"}
LOSSES = {"loss": "whole window", "loss_first_s": "first second", "loss_hidden": "past hidden"}


def draw_scores(targets: dict, file: Path) -> str:
    """Points with intervals: scores from the real stem to the floor, and gaps of the loss."""
    figure = Figure(figsize=(4.6 * len(targets), 8), layout="constrained")
    axes = figure.subplots(len(SCORES) + 1, len(targets), sharey="row", squeeze=False)
    said = []
    for column, (target, one) in enumerate(targets.items()):
        lines = _lines(one)
        for row, (metric, title) in enumerate(SCORES.items()):
            _points(axes[row, column], [(label, kind, e[metric]) for label, kind, e in lines])
            axes[row, 0].set_ylabel(title)
        gaps = [
            (f"{condition}, {title}", "right", own["gap"][metric])
            for condition, own in one["conditions"].items()
            for metric, title in LOSSES.items()
        ]
        _points(axes[-1, column], gaps)
        axes[-1, column].axhline(0, color="#999999", linewidth=0.7)
        axes[-1, 0].set_ylabel("loss: another song's context\nminus the right one, nats")
        axes[0, column].set_title(f"{target}, n = {one['n']} windows, {one['n_songs']} songs")
        said.append(
            f"{target}: "
            + ", ".join(f"{label} {e['beat_f1']['value']:.2f}" for label, _, e in lines)
        )
    _save(figure, file)
    return (
        "Beat F1 and onset alignment with 95 % intervals for the real stem, stems generated with "
        "several contexts and other songs' stems, and the gaps of the loss. Beat F1 of "
        f"{'; of '.join(said)}."
    )


def draw_onset_positions(positions: dict[str, dict[str, ndarray]], file: Path) -> str:
    """Histograms of where in the beat onsets are: peaks at 0 and 1/2 mean that they keep to it."""
    names = list(next(iter(positions.values())))
    figure = Figure(figsize=(4.6 * len(positions), 0.9 * len(names) + 0.6), layout="constrained")
    axes = figure.subplots(len(names), len(positions), sharex=True, squeeze=False)
    for column, (target, found) in enumerate(positions.items()):
        for row, name in enumerate(names):
            axis, kind = axes[row, column], name.rpartition("/")[2]
            places = (found[name] + 0.125) % 1 - 0.125
            counts, edges = np.histogram(places, bins=48, range=(-0.125, 0.875))
            share = counts / max(1, counts.sum())
            axis.stairs(share, edges, fill=True, color=COLOURS[kind])
            axis.axhline(1 / 48, color="#999999", linewidth=0.7)
            axis.set_yticks([])
            axis.set_ylabel(_label(name), fontsize=8, rotation=0, ha="right", va="center")
            if row == 0:
                axis.set_title(target)
        axes[-1, column].set_xticks([0, 0.25, 0.5, 0.75], ["beat", "1/4", "1/2", "3/4"])
    _save(figure, file)
    return (
        "Histograms of the position of onsets within the beat, by stem and context; the grey line "
        f"is what evenly spread onsets would give. Rows: {', '.join(_label(n) for n in names)}."
    )


def _lines(one: dict) -> list[tuple[str, str, dict]]:
    """(label, kind, estimates) from the ceiling to the floor."""
    lines = [("real", "real", one["real"])]
    if "real_decoded" in one:
        lines.append(("real, codec", "real_decoded", one["real_decoded"]))
    for condition, own in one["conditions"].items():
        lines += [(f"{condition}, {kind}", kind, own[kind]) for kind in ("right", "shuffled")]
    return [*lines, ("no context", "none", one["none"]), ("other songs", "other", one["other"])]


def _points(axis: Axes, points: list[tuple[str, str, dict]]) -> None:
    for x, (_, kind, e) in enumerate(points):
        below, above = e["value"] - e["low"], e["high"] - e["value"]
        axis.errorbar(x, e["value"], [[below], [above]], fmt="o", color=COLOURS[kind], capsize=3)
    axis.set_xticks(
        range(len(points)), [label for label, _, _ in points], rotation=30, ha="right", fontsize=8
    )
    axis.grid(axis="y", alpha=0.3)


def _label(name: str) -> str:
    return name.replace("_", ", ").replace("/", ", ").replace("none", "no context")


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=110, facecolor="white", metadata={"Software": None})
