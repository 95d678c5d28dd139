"""The beats that a score is measured against: checked, and where any time lies among them.

The phase of a time counts in beats of the reference: 0 at its first beat, 1 at the second, 0.5
halfway. Straight on between two beats, and beyond the ends at the distance of the last two.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..errors import StageLiteError
from ..metronome import check_times

EDGE_S = 0.07  # how far outside of its recording a beat may be

Times = Float[ndarray, "_"] | Sequence[float]


def check_reference(
    times: Times, duration_s: float | None = None, name: str = "beat_times", at_least: int = 1
) -> Float[ndarray, "n"]:
    """Reference times as an array.

    Args:
        times: seconds from the start of the recording, increasing.
        duration_s: of the recording; None if it is not known.
        name: what the messages call the times.
        at_least: 1, or 2 where the distance of the beats is needed.

    Raises:
        StageLiteError: none or too few, malformed, or outside of the recording.
    """
    values = check_times(times, name)
    if not len(values):
        raise StageLiteError(
            f"{name} is empty; expected at least one time: without a reference there is no score; "
            "leave the clip out, and count it"
        )
    if len(values) < at_least:
        raise StageLiteError(
            f"{name} holds one beat, at {values[0]:.4g} s; expected at least two, which tell "
            "how far apart they are"
        )
    if duration_s is not None:
        outside = values[(values < -EDGE_S) | (values > duration_s + EDGE_S)]
        if len(outside):
            raise StageLiteError(
                f"{name} has {outside[0]:.4g} s, outside of the recording of {duration_s:.4g} s; "
                "expected seconds from its start; subtract the start of the window"
            )
    return values


def beat_phase(times: Times, beat_times: Times) -> Float[ndarray, "n"]:
    """Where times lie, in beats from the first beat.

    >>> beat_phase([0.0, 1.0, 1.5, 4.0], [0.5, 1.5, 2.0])
    array([-0.5,  0.5,  1. ,  6. ])
    """
    beats = check_reference(beat_times, at_least=2)
    return _straight_on(np.asarray(times, dtype=np.float64), beats, np.arange(float(len(beats))))


def phase_time(phases: Times, beat_times: Times) -> Float[ndarray, "n"]:
    """The time in seconds of a phase in beats: undoes `beat_phase`."""
    beats = check_reference(beat_times, at_least=2)
    return _straight_on(np.asarray(phases, dtype=np.float64), np.arange(float(len(beats))), beats)


def _straight_on(x: ndarray, xs: ndarray, ys: ndarray) -> ndarray:
    """np.interp that goes on beyond both ends at the slope that it had there."""
    y = np.interp(x, xs, ys)
    before = ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    after = ys[-1] + (x - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.where(x < xs[0], before, np.where(x > xs[-1], after, y))
