"""What a row of the evidence consists of, as plain values for JSON: tables, findings, pictures.

Numbers keep their interval: an estimate is {"value", "low", "high"}, as metrics.bootstrap gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Estimate = Mapping[str, float]
SHOWN, OPPOSITE, NOT_SHOWN, UNKNOWN = "shown", "the opposite is shown", "not shown", "not known"


class Missing(Exception):
    """A row that cannot be had here; says what is not there and how to get it."""


@dataclass(frozen=True)
class Cost:
    """What a row asks for, to be told before it begins.

    Attributes:
        clip_s: seconds of music to generate, all clips together.
        heard_s: seconds of music to listen to.
        steps: training steps of the small models.
    """

    clip_s: float = 0.0
    heard_s: float = 0.0
    steps: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.clip_s + other.clip_s, self.heard_s + other.heard_s, self.steps + other.steps
        )


def verdict(difference: Estimate) -> str:
    """Is a difference above 0? Only if all of its interval is."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNKNOWN
    return SHOWN if low > 0 else OPPOSITE if high < 0 else NOT_SHOWN


def finding(
    what: str, difference: Estimate, *, digits: int = 2, agree: bool = True
) -> dict[str, Any]:
    """One sentence that a difference above 0 would make true.

    Args:
        what: the sentence.
        difference: with its interval.
        digits: to print.
        agree: whether all seeds have the difference's sign; if not, nothing is shown.
    """
    said = verdict(difference)
    if not agree and said in (SHOWN, OPPOSITE):
        said = NOT_SHOWN
    return {"what": what, "difference": dict(difference), "digits": digits, "verdict": said}


def table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 2
) -> dict[str, Any]:
    """A table whose first column is a name; cells are estimates, numbers, words or None."""
    cells = [[c if isinstance(c, str) else _plain(c) for c in row] for row in rows]
    return {"title": title, "head": list(head), "rows": cells, "digits": digits}


def panel(
    title: str, unit: str, points: Sequence[tuple[str, str, Estimate]], zero: bool = False
) -> dict[str, Any]:
    """A picture of points with intervals.

    Args:
        title: above it.
        unit: of the upright axis.
        points: (label, kind, estimate); points of one kind share a colour.
        zero: draw a line at 0.
    """
    points = [{"label": label, "kind": kind} | dict(e) for label, kind, e in points]
    return {"title": title, "unit": unit, "points": points, "zero": zero}


def _plain(cell: Any) -> Any:
    return dict(cell) if isinstance(cell, Mapping) else cell
