"""Continuity of tracked beats: how much of the music keeps the beat without falling out of it.

A tracked beat counts if it lies within 17.5 % of a beat of its reference AND its distance from the
beat before differs by at most 17.5 %: stray hits that beat F1 would count are left out.

- CMLt, correct metrical level: at the tempo of the reference.
- AMLt, allowed metrical levels: at double or half the tempo or on the off-beat too, the best of
  them. AMLt well above CMLt is an octave or phase error, not a lost beat. Three times the tempo is
  not among them.

Nothing is cut off at the start (mir_eval's 5 s are for whole songs). On a window of 8 s the score
moves in steps of 1 / 16 at 120 bpm, and one mistake costs two or three beats.

Source: Davies, Degara and Plumbley 2009, Evaluation methods for musical audio beat tracking
algorithms; `mir_eval.beat.continuity`. Notebook: 07_evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

from ..metronome import check_times
from .reference import Times, check_reference
from .trackers import AnyTracker, Wav, check_and_track


class Continuity(NamedTuple):
    """Both in [0, 1], larger is better; amlt is never below cmlt."""

    cmlt: float
    amlt: float


def continuity(
    beat_times: Times, wav: Wav, sample_rate: int, tracker: AnyTracker = None
) -> Continuity:
    """CMLt and AMLt of the beats that a tracker hears in a wav against given beats.

    Args:
        beat_times: the beats that the music should keep, at least two.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        tracker: a name, a function (wav [1, L], sample_rate) -> seconds, or None: librosa's.

    Returns:
        Zeros for silence and where fewer than two beats are heard.

    Raises:
        StageLiteError: fewer than two given beats, malformed times, a wav that `audio.check_wav`
            refuses, a tracker that is not there.
    """
    return continuity_of_times(*check_and_track(beat_times, wav, sample_rate, tracker, 2))


def continuity_of_times(beat_times: Times, tracked_times: Times) -> Continuity:
    """`mir_eval.beat.continuity` of tracked beats against given ones, the two total scores."""
    from mir_eval.beat import continuity as mir_continuity

    beats = check_reference(beat_times, at_least=2)
    tracked = check_times(tracked_times, "tracked_times")
    if len(tracked) < 2:
        return Continuity(0.0, 0.0)
    _, cmlt, _, amlt = mir_continuity(beats, tracked)
    return Continuity(float(cmlt), float(amlt))
