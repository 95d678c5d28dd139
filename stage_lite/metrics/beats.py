"""Does a stem keep the beat? Beat F1, onsets against the beat grid, onset F1.

Continuity, tempo error, start offset and drift have files of their own and are in reach here too:
`beats.tempo_error`.

Aim: to tell a stem that fits given beats from one that fits other beats. None of the measures says
that music is good; each is read next to its floor (another song's context), its ceiling (the real
stem) and no context, with n and an interval.

Conventions, as in mir_eval: times are in seconds from the start of the wav and increase; an event
may be matched once; a score is in [0, 1], larger is better, if not said otherwise. Nothing is cut
off: mir_eval's habit of leaving out the first 5 s (`mir_eval.beat.trim_beats`) is meant for whole
songs and would throw away most of an 8-s window.

Each measure has two forms: of audio, where the events are found first, and of times
(`..._of_times`), for events that are known or that are compared with several references. Beats are
heard by a tracker, given by name or as a function: see `trackers`.

Source: Raffel et al. 2014, mir_eval (ISMIR); Davies et al. 2009, beat tracking evaluation.
Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..metronome import check_times
from .continuity import Continuity, continuity, continuity_of_times
from .drift import Drift, beat_drift, beat_drift_of_times
from .reference import Times, check_reference
from .start import StartOffset, start_offset, start_offset_of_times
from .tempo import TempoError, tempo_error, tempo_error_of_times
from .trackers import (
    ANALYSIS_RATE,
    AnyTracker,
    Tracker,
    Wav,
    check_and_track,
    find_beats,
    get_tracker,
    grid_tracker,
    list_trackers,
    tracked_beats,
)

__all__ = [  # of this file and of those imported above
    "ANALYSIS_RATE",
    "BEAT_WINDOW_S",
    "ONSET_WINDOW_S",
    "AnyTracker",
    "Continuity",
    "Drift",
    "StartOffset",
    "TempoError",
    "Tracker",
    "beat_divisions",
    "beat_drift",
    "beat_drift_of_times",
    "beat_f1",
    "beat_f1_of_times",
    "continuity",
    "continuity_of_times",
    "find_beats",
    "find_onsets",
    "get_tracker",
    "grid_tracker",
    "list_trackers",
    "onset_alignment",
    "onset_alignment_of_times",
    "onset_f1",
    "start_offset",
    "start_offset_of_times",
    "tempo_error",
    "tempo_error_of_times",
    "tracked_beats",
]

BEAT_WINDOW_S = 0.07  # on both sides of a beat
ONSET_WINDOW_S = 0.05
ONSET_HOP = 256  # samples, 8 ms


def beat_f1(
    beat_times: Times,
    wav: Wav,
    sample_rate: int,
    tracker: AnyTracker = None,
    window_s: float = BEAT_WINDOW_S,
) -> float:
    """F1 of the beats that a tracker hears in a wav against given beats.

    A tracker errs too: librosa's reaches about 0.75 on 8 s of real drums and 0.55 on real bass,
    and about 0.25 on a stem of another song. So the real stem, not 1, is the ceiling. Tapping at
    double or half the tempo, an octave error, gives about 2/3; tapping between the beats gives 0.

    Args:
        beat_times: the beats that the music should keep, at least one.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        tracker: function (wav Float[1, L], sample_rate) -> beat times in seconds, or a name of
            `trackers.list_trackers()`; None is librosa's, `find_beats`.
        window_s: how far a beat may be off, to either side.

    Returns:
        F1 in [0, 1]. A wav in which no beat is found scores 0, and so does silence (below -60
        dBFS), in which nothing is looked for.

    Raises:
        StageLiteError: no beats, beats that don't increase or lie outside of the wav, a wav that
            `audio.check_wav` refuses, a tracker that is not there or returns no times.
    """
    return beat_f1_of_times(*check_and_track(beat_times, wav, sample_rate, tracker), window_s)


def beat_f1_of_times(
    beat_times: Times, tracked_times: Times, window_s: float = BEAT_WINDOW_S
) -> float:
    """`mir_eval.beat.f_measure` of tracked beats against given ones; 0 if none was tracked."""
    from mir_eval.beat import f_measure

    beats = check_reference(beat_times, None, "beat_times")
    tracked = check_times(tracked_times, "tracked_times")
    return float(f_measure(beats, tracked, _window(window_s))) if len(tracked) else 0.0


def onset_f1(
    reference_onsets: Times, estimated_onsets: Times, window_s: float = ONSET_WINDOW_S
) -> float:
    """`mir_eval.onset.f_measure`: are the onsets of one recording those of another?

    For a recording and its copy (a codec, a transcription). `find_onsets` finds them in audio.

    Returns:
        F1 in [0, 1]; 0 if nothing was estimated.

    Raises:
        StageLiteError: no reference onsets (leave such clips out, and count them), malformed times.
    """
    from mir_eval.onset import f_measure

    reference = check_reference(reference_onsets, None, "reference_onsets")
    estimated = check_times(estimated_onsets, "estimated_onsets")
    if not len(estimated):
        return 0.0
    return float(f_measure(reference, estimated, _window(window_s))[0])


def onset_alignment(
    beat_times: Times,
    wav: Wav,
    sample_rate: int,
    window_s: float = ONSET_WINDOW_S,
    subdivisions: int = 2,
    above_chance: bool = True,
) -> float:
    """How many onsets of a wav fall on the grid of beats and eighths, more than by chance.

    Needs no beat tracker, so it has no octave errors; but it asks only whether what is played is on
    the grid, not whether the grid is played: one onset on a beat scores 1. Swing, shuffles and 6/8
    divide the beat in three and score low even when they are real.

    Args:
        beat_times: at least two; the grid goes on beyond the first and the last at their distance.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        window_s: how far an onset may be off the grid, to either side.
        subdivisions: of a beat: 1 beats only, 2 eighths, 3 triplets, 4 sixteenths.
        above_chance: False returns the bare share of onsets on the grid. Of onsets at random times
            the share `c` of the wav that lies within `window_s` of the grid would be on it (0.4 at
            120 bpm), so by default the result is (share - c) / (1 - c).

    Returns:
        1: every onset is on the grid. 0: as many as by chance, or no onsets at all, as in silence
        (below -60 dBFS). Below 0: fewer than by chance.

    Raises:
        StageLiteError: fewer than two beats, malformed times, a wav that `audio.check_wav` refuses,
            a grid so fine that everything is on it.
    """
    mono = to_mono(check_wav(wav, sample_rate))
    duration_s = mono.shape[-1] / sample_rate
    beats = check_reference(beat_times, duration_s, "beat_times")
    onsets = find_onsets(mono, sample_rate)
    return onset_alignment_of_times(beats, onsets, duration_s, window_s, subdivisions, above_chance)


def onset_alignment_of_times(
    beat_times: Times,
    onset_times: Times,
    duration_s: float,
    window_s: float = ONSET_WINDOW_S,
    subdivisions: int = 2,
    above_chance: bool = True,
) -> float:
    """`onset_alignment` of known onsets in a recording of `duration_s` seconds."""
    onsets = check_times(onset_times, "onset_times")
    grid = beat_divisions(beat_times, duration_s, subdivisions)
    share, covered = share_near(onsets, grid, duration_s, window_s)
    if covered > 0.95:
        raise StageLiteError(
            f"{covered:.0%} of the time lies within {window_s} s of the grid; expected at most "
            "95 %; take a smaller window_s or fewer subdivisions"
        )
    if not len(onsets):
        return 0.0
    return (share - covered) / (1 - covered) if above_chance else share


def beat_divisions(
    beat_times: Times, duration_s: float, subdivisions: int = 2
) -> Float[ndarray, "m"]:
    """The beats and what lies evenly between them, from before 0 to after `duration_s`.

    >>> beat_divisions([0.5, 1.5], 2.0)
    array([-0.5,  0. ,  0.5,  1. ,  1.5,  2. ,  2.5])
    """
    beats = check_reference(beat_times, duration_s, "beat_times", at_least=2)
    if subdivisions < 1 or subdivisions != int(subdivisions):
        raise StageLiteError(f"subdivisions is {subdivisions}; expected a whole number from 1")
    first, last = beats[1] - beats[0], beats[-1] - beats[-2]
    before = beats[0] - first * np.arange(int(max(0.0, beats[0]) / first) + 1, 0, -1)
    after = beats[-1] + last * np.arange(1, int(max(0.0, duration_s - beats[-1]) / last) + 2)
    beats = np.concatenate([before, beats, after])
    steps = np.arange(0, (len(beats) - 1) * int(subdivisions) + 1) / subdivisions
    return np.interp(steps, np.arange(len(beats)), beats)


def find_onsets(wav: Float[Tensor, "C L"], sample_rate: int) -> Float[ndarray, "n"]:
    """Onsets by librosa (`librosa.onset.onset_detect`, 8 ms steps); none below -60 dBFS."""
    import librosa

    if is_silent(wav):
        return np.zeros(0)
    mono = to_mono(resample(wav, sample_rate, ANALYSIS_RATE))[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short audio: n_fft is larger than the signal
        onsets = librosa.onset.onset_detect(
            y=mono, sr=ANALYSIS_RATE, hop_length=ONSET_HOP, units="time"
        )
    return np.asarray(onsets, dtype=np.float64)


def _window(window_s: float) -> float:
    if not 0 < window_s < float("inf"):
        raise StageLiteError(f"window_s is {window_s}; expected a number of seconds above 0")
    return window_s


def share_near(
    times: Float[ndarray, "n"], places: Float[ndarray, "m"], duration_s: float, window_s: float
) -> tuple[float, float]:
    """The share of times within `window_s` of a place, and of [0, duration_s]: what chance hits."""
    middles = (places[1:] + places[:-1]) / 2  # each moment belongs to its nearest place
    left = np.maximum(places - _window(window_s), np.concatenate([[-np.inf], middles]))
    right = np.minimum(places + window_s, np.concatenate([middles, [np.inf]]))
    lengths = np.minimum(right, duration_s) - np.maximum(left, 0.0)
    covered = float(np.maximum(lengths, 0.0).sum() / duration_s)
    if not len(times):
        return 0.0, covered
    return float(np.mean(np.abs(times[:, None] - places).min(axis=1) <= window_s)), covered
