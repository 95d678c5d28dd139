"""Is the tempo right? The tempo of the tracked beats against the reference's, octaves apart.

Each tracked beat is placed among the beats of the reference (`reference.beat_phase`), so that a
tempo curve is compared with itself at the same moment: against an accelerando only an accelerando
is right. The tracked beats are then counted, a gap of two counting as two, and the slope of place
over count (Theil and Sen's: the median over all pairs) is the length of one tracked beat in beats
of the reference; its inverse is the ratio of the tempi. It needs no match between the two, so a
shift in time makes no difference.

Why not the bare median of the distances: librosa's beats come in steps of 16 ms, 5 % of a beat at
190 bpm. On 108 click tracks of 8 s from 60 to 190 bpm, octave errors apart, it erred by 0.8 % in
the median and 1.9 % at most, the slope by 0.03 % and 0.33 %; with a quarter of the beats missing no
more than that.

Source: Sen 1968 for the slope; Gouyon et al. 2006 for counting octave errors apart.
Notebook: 07_evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..metronome import check_times
from .reference import Times, beat_phase, check_reference
from .trackers import AnyTracker, Wav, check_and_track

OCTAVES = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)  # tempi that a listener may tap as well


class TempoError(NamedTuple):
    """Above 0 is too fast; all NaN where the tempo is undefined.

    Attributes:
        percent: the plain error, 100 * (tracked / reference - 1); +100 at double the tempo. Its
            mean over clips is ruled by the octave errors.
        octave: the factor of 1/3, 1/2, 1, 2, 3 that the ratio is nearest to (in its logarithm).
        octave_percent: the error that is left after it, 100 * (tracked / (octave * reference) - 1).
            Within about 4 %, tempo estimation's usual tolerance, the tempo is right up to the
            octave; far beyond it the tempo is wrong, and `octave` means nothing. A tracker that
            taps three beats for two, common with triplets, has -25 or +33.
    """

    percent: float
    octave: float
    octave_percent: float


def tempo_error(
    beat_times: Times, wav: Wav, sample_rate: int, tracker: AnyTracker = None
) -> TempoError:
    """Error of the tempo that a tracker hears in a wav, against given beats.

    Report the median of |octave_percent| and the share of clips with octave 1, each with the
    number of clips that had a tempo at all.

    Args:
        beat_times: the beats that the music should keep, at least two; of a tempo that is known
            only as a number, those of `metronome.beat_grid`.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        tracker: a name, a function (wav [1, L], sample_rate) -> seconds, or None: librosa's, which
            prefers tempi near 120 bpm and so halves fast ones.

    Returns:
        NaN for silence and where fewer than two beats are heard: no tempo is not a wrong tempo.

    Raises:
        StageLiteError: fewer than two given beats, malformed times, a wav that `audio.check_wav`
            refuses, a tracker that is not there.
    """
    return tempo_error_of_times(*check_and_track(beat_times, wav, sample_rate, tracker, 2))


def tempo_error_of_times(beat_times: Times, tracked_times: Times) -> TempoError:
    """`tempo_error` of known beats; NaN for fewer than two tracked ones."""
    beats = check_reference(beat_times, at_least=2)
    tracked = check_times(tracked_times, "tracked_times")
    if len(tracked) < 2:
        return TempoError(float("nan"), float("nan"), float("nan"))
    ratio = 1 / _interval(beat_phase(tracked, beats))
    octave = min(OCTAVES, key=lambda factor: abs(np.log(ratio / factor)))
    return TempoError(100 * (ratio - 1), octave, 100 * (ratio / octave - 1))


def _interval(places: Float[ndarray, "n"]) -> float:
    """The length of one step of an increasing series, in which steps may be missing."""
    from scipy.stats import theilslopes

    steps = np.diff(places)
    numbers = np.concatenate([[0.0], np.cumsum(np.round(steps / np.median(steps)))])
    return float(theilslopes(places, numbers).slope)
