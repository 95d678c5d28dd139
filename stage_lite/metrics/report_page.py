"""The report of `sl.evaluate` as files: a page with everything in it, its figure, and JSON.

JSON knows no NaN: what is not there is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy import ndarray

from ..examples import Example
from ..files import write_atomic
from ..html_page import Section, Table, page
from ..plots import Figure, render
from ..result_store import without_nan
from .bootstrap import shown
from .report import METRICS
from .systems import ANOTHER, GENERATED, LOOP, NO_CONTEXT, REAL, SHUFFLED, SYSTEMS

if TYPE_CHECKING:
    from pandas import DataFrame

# Okabe and Ito's colours.
COLOURS = {
    REAL: "#000000",
    GENERATED: "#0072B2",
    NO_CONTEXT: "#E69F00",
    SHUFFLED: "#D55E00",
    ANOTHER: "#CC79A7",
    LOOP: "#009E73",
}
ACROSS = 4  # panels in a row
HOW_TO_READ = (
    "The real stem is the ceiling: a beat tracker errs on real music too, so the ceiling is not 1. "
    "The same model with another song's context is the floor: if generated is no better, the model "
    "does not listen. No context shows what the words alone do.",
    "Another song's stem is a real one in the wrong place; the loop is a real bar at the right "
    "tempo that knows nothing of where the beats are. A model has to pass both.",
    "Brackets are 95 % intervals over songs, since windows of one song are alike. p is the chance "
    "of such a difference from the shuffled context if the context made none; of twenty such "
    "numbers one is below 0.05 by chance. Where an interval of a difference holds 0, nothing is "
    "shown.",
    "The gap closed is (generated - shuffled context) / (real - another song's stem). FAD and KAD "
    "compare sets and do not know which stem belongs to which context: another song's stems score "
    "as the real ones do.",
)


def write_report(
    table: DataFrame,
    examples: Sequence[Example],
    scores: Mapping[str, Mapping[str, ndarray]],
    folder: str | Path,
) -> Path:
    """Write report.png, report.json and report.html, each whole or not at all.

    Args:
        table: of `evaluate`.
        examples: the windows.
        scores: metric -> system -> one score per window; they go into the JSON, so that another
            model on the same windows can be compared pair by pair.
        folder: made if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(table)
    content = {
        "what": "stage_lite.evaluate",
        **table.attrs,
        "rows": [
            {"metric": metric, "system": system, **row.to_dict()}
            for (metric, system), row in table.iterrows()
        ],
        "windows": [
            {"song": e.song_id, "start_s": e.start_s, "target": e.target_name,
             "condition": e.condition, "description": e.description}
            for e in examples
        ],
        "scores": {m: {s: c.tolist() for s, c in columns.items()} for m, columns in scores.items()},
        "figure": {"file": "report.png", "alt": figure.alt},
    }  # fmt: skip
    figure.save(folder / "report.png")
    text = json.dumps(without_nan(content), indent=1, allow_nan=False, default=_plain)
    write_atomic(folder / "report.json", text + "\n")
    write_atomic(folder / "report.html", html(table, figure))
    return folder / "report.html"


def draw(table: DataFrame) -> Figure:
    """One panel per metric: a point with its interval for every system."""
    from matplotlib.figure import Figure as Canvas

    metrics = [m for m in _metrics(table) if m not in table.attrs["missing"]]
    down = max(1, math.ceil(len(metrics) / ACROSS))
    canvas = Canvas(figsize=(13, 2.1 * down + 0.4), layout="constrained")
    axes = canvas.subplots(down, ACROSS, sharey=True, squeeze=False)
    for axis in axes.flat[len(metrics) :]:
        axis.set_visible(False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        for place, system in enumerate(SYSTEMS):
            row = table.loc[metric, system]
            if math.isnan(row["value"]):
                continue
            reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            known = not math.isnan(reach[0][0])
            axis.errorbar(row["value"], place, xerr=reach if known else None, fmt="o",
                          color=COLOURS[system], capsize=3)  # fmt: skip
        axis.set_title(METRICS[metric].label, fontsize=9, loc="left")
        unit, better = METRICS[metric].unit, METRICS[metric].better
        axis.set_xlabel(f"{unit}; {better} is better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yticks(range(len(SYSTEMS)), SYSTEMS)
    axes[0, 0].set_ylim(len(SYSTEMS) - 0.5, -0.5)
    said = "; ".join(
        f"{METRICS[m].label}: "
        + ", ".join(f"{s} {_number(m, table.loc[m, s]['value'])}" for s in SYSTEMS)
        for m in metrics
    )
    alt = (
        f"Means with 95 % intervals of {len(metrics)} metrics for {table.attrs['model']!r}, n = "
        f"{table.attrs['n']} windows, by system. {said or 'Nothing could be measured'}."
    )
    return render(canvas, alt)


def html(table: DataFrame, figure: Figure) -> str:
    """The page; it loads nothing."""
    about = table.attrs
    sections = [
        Section("The numbers", [values_table(table), figure]),
        Section("Against the shuffled context", [p_table(table)]),
        Section("The gap closed", [gap_table(table)]),
        Section("How to read this", HOW_TO_READ),
        Section("What was evaluated", [_settings(table)]),
    ]
    if about["missing"]:
        rows = list(about["missing"].items())
        sections.insert(3, Section("Not measured", [Table("", ["metric", "why"], rows)]))
    return page(
        f"Does {about['model']} play along?",
        f"n = {about['n']} windows of {about['window_s']:g} s from {about['n_songs']} songs, seed "
        f"{about['seed']}, guidance {about['cfg_coef']:g}.",
        sections,
    )


def values_table(table: DataFrame) -> Table:
    """Metrics by systems, each value with its interval."""
    rows = [
        [_title(metric), *(_with_interval(metric, table.loc[metric, system]) for system in SYSTEMS)]
        for metric in _metrics(table)
    ]
    caption = "Means over windows with 95 % intervals; ↑ higher is better, ↓ lower."
    return Table(caption, ["", *SYSTEMS], rows)


def p_table(table: DataFrame) -> Table:
    """p of each system against the shuffled context."""
    others = [system for system in SYSTEMS if system != SHUFFLED]
    rows = [
        [_title(metric), *(_p(table.loc[metric, system]["p"]) for system in others),
         str(table.loc[metric, GENERATED]["n"]), str(table.loc[metric, GENERATED]["n_songs"])]
        for metric in _metrics(table)
        if not table.loc[metric]["p"].isna().all()
    ]  # fmt: skip
    return Table("p of a paired test over songs.", ["", *others, "windows", "songs"], rows)


def gap_table(table: DataFrame) -> Table:
    """Share of the gap that the model closes."""
    rows = [
        [METRICS[metric].label, "no gap to close" if math.isnan(gap["value"]) else shown(gap)]
        for metric, gap in table.attrs["gap_closed"].items()
    ]
    return Table("0: it does not listen; 1: it plays as the real stem does.", ["", "closed"], rows)


def compact_table(table: DataFrame) -> Table:
    """For a terminal: values, and the interval of what was generated."""
    rows = []
    for metric in _metrics(table):
        if metric in table.attrs["missing"]:
            continue
        values = {s: table.loc[metric, s] for s in SYSTEMS}
        rows.append([
            _title(metric),
            *(_with_interval(metric, v) if s == GENERATED else _number(metric, v["value"])
              for s, v in values.items()),
            _p(values[GENERATED]["p"]),
        ])  # fmt: skip
    about = table.attrs
    names = ["real", "generated", "no context", "shuffled", "another's", "loop", "p"]
    caption = (
        f"{about['model']}: {about['n']} windows of {about['window_s']:g} s, {about['n_songs']} "
        f"songs, seed {about['seed']}; p: generated against shuffled"
    )
    return Table(caption, ["", *names], rows)


def _settings(table: DataFrame) -> Table:
    about = table.attrs
    left_out = [f"{count} {reason}" for reason, count in about["left_out"].items() if count]
    rows = {
        "model": about["model"],
        "windows": f"{about['n']} of {about['window_s']:g} s, from {about['n_songs']} songs",
        "passed over": ", ".join(left_out) or "none",
        "reference of FAD and KAD": f"{about['n_reference']} further real windows",
        "targets": ", ".join(about["targets"]),
        "contexts": ", ".join(about["conditions"]),
        "the real stem is": about["real_is"],
        "seed": str(about["seed"]),
        **{name: str(value) for name, value in about["settings"].items()},
    }
    return Table("", ["", ""], [list(row) for row in rows.items()])


def _metrics(table: DataFrame) -> list[str]:
    return list(dict.fromkeys(table.index.get_level_values("metric")))


def _title(metric: str) -> str:
    arrow = "↑" if METRICS[metric].better == "higher" else "↓"
    unit = METRICS[metric].unit
    return f"{METRICS[metric].label} {arrow}" + (", %" if unit == "%" else "")


def _with_interval(metric: str, row: Any) -> str:
    if math.isnan(row["low"]):
        return _number(metric, row["value"])
    return shown(dict(row), _digits(metric, row["value"]))


def _number(metric: str, value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.{_digits(metric, value)}f}"


def _digits(metric: str, value: float) -> int:
    if metric.startswith("kad"):
        return 3
    return 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: Any) -> Any:
    """NumPy's numbers for JSON."""
    return value.item()
