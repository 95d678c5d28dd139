"""The table of a scan: one row per problem, and a report when it is printed."""

from __future__ import annotations

import html
from pathlib import Path

import pandas as pd

COLUMNS = ("severity", "problem", "song", "stem", "file", "detail")
SEVERITIES = ("broken", "odd", "note")
SHOWN = 3  # lines per problem in print


class ScanTable(pd.DataFrame):
    """One row per problem, the worst first; prints as a report.

    Attributes:
        summary: plain numbers: songs, hours, layouts, splits, stems, sample_rates, channels, beats,
            usable_songs, problems, broken_songs.
    """

    _metadata = ("summary",)

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a part of the table is an ordinary one

    @property
    def broken_songs(self) -> list[str]:
        """Ids of songs in which something is broken; what StemDataset(skip=table) leaves out."""
        return self.summary["broken_songs"]

    def __repr__(self) -> str:
        return "\n".join([*_summary_lines(self.summary), *_problem_lines(self)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _summary_lines(summary: dict) -> list[str]:
    def counted(counts: dict, unit: str = "") -> str:
        return ", ".join(f"{name}{unit} {count}" for name, count in counts.items()) or "none"

    channels = {{1: "mono", 2: "stereo"}.get(c, f"{c} channels"): n
                for c, n in summary["channels"].items()}  # fmt: skip
    by_hash = summary["splits_by_hash"]
    what = f"with {summary['target']}, " if summary["target"] else ""
    lines = [
        f"{summary['folder']}: {summary['songs']} songs, {summary['hours']:.2f} h, "
        f"{summary['files']} recordings ({counted(summary['layouts'])})",
        f"  stems         {counted(summary['stems'])}",
        f"  sample rates  {counted(summary['sample_rates'], ' Hz')}",
        f"  channels      {counted(channels)}",
        f"  splits        {counted(summary['splits'])}"
        + (f" ({by_hash} of them by a hash of the name)" if by_hash else ""),
        f"  beats         {counted(summary['beats'])}",
        f"  usable        {len(summary['usable_songs'])} songs {what}of at least "
        f"{summary['window_s']:g} s, nothing broken",
    ]
    if not summary["deep"]:
        lines.append("  only heads and tails of files were read: silence and copies are not found")
    return lines


def _problem_lines(table: ScanTable) -> list[str]:
    if not len(table):
        return ["nothing to report"]
    counts = {s: sum(found.values()) for s, found in table.summary["problems"].items()}
    lines = [f"{counts['broken']} broken, {counts['odd']} odd, {counts['note']} notes"]
    for (severity, problem), rows in table.groupby(["severity", "problem"], sort=False):
        lines.append(f"  {severity:7} {problem}: {len(rows)}")
        for row in rows.head(SHOWN).itertuples():
            stem = f", {row.stem}" if row.stem else ""
            place = f" [{Path(row.file).name}]" if row.file else ""
            lines.append(f"          {row.song}{stem}{place}: {row.detail}")
        if len(rows) > SHOWN:
            lines.append(f"          ... {len(rows) - SHOWN} more: table.problem == {problem!r}")
    return lines
