"""docs/evidence.md and its pictures, from the rows' JSON alone: nothing is computed here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from evidence.content import NOT_SHOWN, OPPOSITE, SHOWN
from evidence.desk import FULL_N
from stage_lite.files import write_atomic
from stage_lite.plots import GREY, Figure, new_figure, render

# Okabe and Ito's colours.
COLOURS = {
    "ceiling": "#000000",
    "right": "#0072B2",
    "floor": "#D55E00",
    "other": "#E69F00",
    "context": "#009E73",
}
SURPRISES = Path(__file__).with_name("surprises.json")

HEAD = """# STAGE's claims in miniature

What holds for the small models of this repository, by how much, and how sure that is. Every number
is computed by `make evidence` (`python -m evidence`) from the shipped weights and the shipped
songs; `python -m evidence --list` tells what each part costs.

- Windows are of the test split: songs, grooves and chord charts that the language models were not
  trained on. Intervals are 95 %, by resampling songs.
- *Shown* means that all of the interval lies above 0, *the opposite is shown* that it lies below.
  *Not shown* is neither a yes nor a no. Of small trainings each seed must also say the same.
- Of twenty comparisons one comes out as shown by chance. There are {n_findings} on this page.
- Beat F1: librosa's tracker, 70 ms. Onset alignment: onsets on the grid of beats and eighths, 0 is
  chance. Losses are in nats per code; with the *past hidden* the model does not see what the target
  has played so far, so that the context is all there is to go by.
- A model of 7 million parameters, trained for hours on rendered music, says little about one of 400
  million. What is here is how to look.
"""


def build(rows: Mapping[str, ModuleType], folder: Path, page: Path) -> Path:
    """Write the page.

    Args:
        rows: name -> the module of a row.
        folder: of the rows' JSON; pictures go there too.
        page: the Markdown file.
    """
    found = {name: _read(folder / f"{name}.json") for name in rows}
    done = {name: row for name, row in found.items() if row is not None}
    n_findings = sum(len(row["findings"]) for row in done.values())
    blocks = [HEAD.format(n_findings=n_findings), _summary(rows, found)]
    for name, module in rows.items():
        blocks.append(f"## {module.TITLE}")
        if found[name] is None:
            blocks.append(_missing(name))
            continue
        blocks += _section(name, found[name], folder, page)
    blocks.append(_surprises(json.loads(SURPRISES.read_text())))
    write_atomic(page, "\n\n".join(block.strip() for block in blocks) + "\n")
    return page


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text()) if file.is_file() else None


def _missing(name: str) -> str:
    return f"Not computed yet: `python -m evidence {name}`."


def _summary(rows: Mapping[str, ModuleType], found: Mapping[str, dict | None]) -> str:
    lines = []
    for name, module in rows.items():
        row = found[name]
        if row is None:
            lines.append([module.TITLE, "", _missing(name), ""])
            continue
        said = [f["verdict"] for f in row["findings"]]
        counts = [f"{said.count(v)} {v}" for v in (SHOWN, NOT_SHOWN, OPPOSITE) if said.count(v)]
        other = len(said) - sum(said.count(v) for v in (SHOWN, NOT_SHOWN, OPPOSITE))
        counts += [f"{other} not known"] if other else []
        # of the findings, those that begin with one of the module's ABOVE_ALL
        above_all = [
            f"{f['what']}: {_cell(f['difference'], f['digits'])} {_said(f['verdict'])}"
            for f in row["findings"]
            if f["what"].startswith(module.ABOVE_ALL)
        ]
        size = f"{row['n']} of {row['n_songs']} songs"
        lines.append([module.TITLE, size, "<br>".join(above_all), ", ".join(counts)])
    return _markdown(["", "windows", "above all", "of all its comparisons"], lines)


def _section(name: str, row: dict[str, Any], folder: Path, page: Path) -> list[str]:
    settings = "; ".join(f"{key} {_setting(value)}" for key, value in row["settings"].items())
    few = f", fewer than the {FULL_N} that a row is meant to have" if row["n"] < FULL_N else ""
    blocks = [
        row["what"],
        f"n = {row['n']} windows{few}, {row['n_songs']} songs, seed {row['seed']}; {settings}. "
        f"Again: `{row['command']}`.",
    ]
    if row["findings"]:
        lines = [[f["what"], _cell(f["difference"], f["digits"]), _said(f["verdict"])]
                 for f in row["findings"]]  # fmt: skip
        blocks.append(_markdown(["", "difference", ""], lines))
    if row["panels"]:
        picture = folder / f"{name}.png"
        figure = draw(row["panels"])
        figure.save(picture)
        blocks.append(f"![{figure.alt}]({picture.relative_to(page.parent).as_posix()})")
    for one in row["tables"]:
        lines = [[_cell(c, one["digits"]) for c in line] for line in one["rows"]]
        blocks += [f"*{one['title']}*", _markdown(one["head"], lines)]
    return blocks


def draw(panels: Sequence[dict[str, Any]]) -> Figure:
    """Panels side by side, two in a line: points with intervals from the ceiling to the floor."""
    n_rows = -(-len(panels) // 2)
    canvas, _ = new_figure(1, height=3.6 * n_rows, width=10.0 if len(panels) > 1 else 6.0)
    canvas.clear()
    axes = canvas.subplots(n_rows, min(2, len(panels)), squeeze=False).flatten()
    said = []
    for axis, one in zip(axes, panels, strict=False):
        labels = [p["label"] for p in one["points"]]
        for x, p in enumerate(one["points"]):
            _point(axis, x, p)
        if one["zero"]:
            axis.axhline(0, color=GREY, linewidth=0.7)
        axis.set_xticks(range(len(labels)), [_short(label) for label in labels], rotation=35,
                        ha="right", fontsize=7.5)  # fmt: skip
        axis.set_ylabel(one["unit"])
        axis.set_title(one["title"], fontsize=10)
        axis.grid(axis="y", alpha=0.3)
        values = ", ".join(f"{p['label']} {_number(p['value'], 2)}" for p in one["points"])
        said.append(f"{one['title']} ({one['unit']}): {values}")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return render(canvas, f"Points with 95 % intervals. {'; '.join(said)}.")


def _point(axis: Any, x: int, p: dict[str, Any]) -> None:
    colour = COLOURS[p["kind"]]
    if p["value"] is None:
        return
    if p["low"] is None or p["high"] is None:
        axis.plot(x, p["value"], "o", color=colour)
        return
    spread = [[max(0.0, p["value"] - p["low"])], [max(0.0, p["high"] - p["value"])]]
    axis.errorbar(x, p["value"], spread, fmt="o", color=colour, capsize=3)


def _surprises(surprises: Sequence[dict[str, str]]) -> str:
    lines = [[s["what"], s["found"], s["where"]] for s in surprises]
    return "## What failed or surprised\n\n" + _markdown(["tried", "what came out", "where"], lines)


# --- words ----------------------------------------------------------------------------------------


def _cell(cell: Any, digits: int) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Mapping):
        value, low, high = (_number(cell[k], digits) for k in ("value", "low", "high"))
        return value if low == high == "?" else f"{value} [{low}, {high}]"
    return cell if isinstance(cell, str) else _number(cell, digits)


def _number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _said(verdict: str) -> str:
    return f"**{verdict}**" if verdict in (SHOWN, OPPOSITE) else verdict


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v:g}" for k, v in value.items()) or "not known"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(label: str) -> str:
    return label if len(label) < 46 else label[:44] + " .."


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
