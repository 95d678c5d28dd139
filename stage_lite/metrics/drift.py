"""Does music run away from its grid over a long clip? The slope of the beats' distance from it.

    distance from the grid           * *      each * is a tracked beat; the slope of the line
    in ms, late is up            * *          through them is the drift, and how far they lie
                           * * *              from the line is the wander
                     * * *
                  -----------------------> time of the grid in s

Matching: the first tracked beat belongs to its nearest beat of the grid, and each further one to
the beat that leaves its distance closest to that of the one before (the phase is unwrapped). So a
drift of more than half a beat is followed to its end, missed beats make no difference, and half
the tempo falls on every second beat. At double or triple tempo the grid is divided likewise (the
octave of `tempo.tempo_error`). A jump onto the off-beat counts as a jump of half a beat; the slope
(Theil and Sen's, the median over all pairs) and the wander (a median) bear a few of them.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..metronome import check_times
from .reference import Times, beat_phase, check_reference, phase_time
from .tempo import tempo_error_of_times
from .trackers import AnyTracker, Wav, check_and_track

LEAST_BEATS = 4  # tracked, for a slope that is more than the noise of two beats


class Drift(NamedTuple):
    """Both NaN where fewer than four beats were tracked.

    Attributes:
        ms_per_s: how much later the music is with each second of the grid. Above 0 it falls behind,
            below 0 it hurries; 10 ms per s is a tempo 1 % too slow, and 300 ms after 30 s.
        wander_ms: median distance of the beats from that line. Large next to a beat, the beats do
            not follow the grid in any tempo, and the slope means nothing.
    """

    ms_per_s: float
    wander_ms: float


def beat_drift(beat_times: Times, wav: Wav, sample_rate: int, tracker: AnyTracker = None) -> Drift:
    """Drift of the beats that a tracker hears in a wav, against given beats.

    Where the tempo is steady it is the tempo error after its octave, in another unit. Read it over
    30 s: librosa's beats come in steps of 16 ms, which on click tracks of 8 s made up to 3 ms per s
    of error (half of them 0.3), on those of 30 s less than 0.1. librosa also takes the tempo to be
    steady and loses a curve, which the wander shows.

    Args:
        beat_times: the grid, at least two beats; continued beyond its ends.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        tracker: a name, a function (wav [1, L], sample_rate) -> seconds, or None: librosa's.

    Raises:
        StageLiteError: fewer than two given beats, malformed times, a wav that `audio.check_wav`
            refuses, a tracker that is not there.
    """
    return beat_drift_of_times(*check_and_track(beat_times, wav, sample_rate, tracker, 2))


def beat_drift_of_times(beat_times: Times, tracked_times: Times) -> Drift:
    """`beat_drift` of known beats."""
    from scipy.stats import theilslopes

    beats = check_reference(beat_times, at_least=2)
    tracked = check_times(tracked_times, "tracked_times")
    if len(tracked) < LEAST_BEATS:
        return Drift(float("nan"), float("nan"))
    phase = beat_phase(tracked, beats)
    step = 1 / max(1.0, tempo_error_of_times(beats, tracked).octave)
    late = np.unwrap(phase - step * np.round(phase / step), period=step)  # in beats
    grid = phase_time(phase - late, beats)  # where each tracked beat belongs
    off = tracked - grid
    slope = theilslopes(off, grid).slope
    left = off - slope * grid
    wander = np.median(np.abs(left - np.median(left)))
    return Drift(1000 * float(slope), 1000 * float(wander))
