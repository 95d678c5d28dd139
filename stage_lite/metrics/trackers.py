"""What hears the beats: a tracker is a function (wav, sample_rate) -> beat times in seconds.

    beats.beat_f1(beat_times, wav, sample_rate, tracker="beat-this")
    beats.beat_f1(beat_times, wav, sample_rate, tracker=my_own_function)

| name | what it is |
|---|---|
| "librosa" | `find_beats`, the default; always there |
| "beat-this" | `beat_this_tracker.beat_this`; needs its package and its weights |
| "grid" | `grid_tracker`: no listening at all, the beats that are known of this very wav |

A tracker gets a mono wav Float[1, L] that `audio.check_wav` passed and that is not silent.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..metronome import check_times, track_beats
from .reference import Times, check_reference

ANALYSIS_RATE = 32000  # Hz, of all audio in which events are found: scores don't hang on the rate

Wav = Tensor | ndarray
Tracker = Callable[[Tensor, int], ndarray]
AnyTracker = Tracker | str | None  # as users give it: a function, a name, or the default


def list_trackers() -> list[str]:
    """The names that `get_tracker` knows, sorted."""
    return sorted(("librosa", "beat-this", "grid"))


def get_tracker(tracker: AnyTracker = None, beat_times: Times | None = None) -> Tracker:
    """The function behind a name.

    Args:
        tracker: a name of `list_trackers()`; None for "librosa"; a function is given back as it is.
        beat_times: for "grid": the known beats of the wav that will be scored.

    Raises:
        StageLiteError: an unknown name, "grid" without its times, "beat-this" without its package
            or its weights. Raised here, before any audio is made or read.
    """
    if callable(tracker):
        return tracker
    if tracker is None or tracker == "librosa":
        return find_beats
    if tracker == "beat-this":
        from .beat_this_tracker import beat_this

        return beat_this()
    if tracker == "grid":
        if beat_times is None:
            raise StageLiteError(
                "the tracker 'grid' came without times; expected the known beats of the wav: "
                "give get_tracker('grid', beat_times=[seconds]) instead of the name"
            )
        return grid_tracker(beat_times)
    raise StageLiteError(
        f"unknown beat tracker {tracker!r}; expected one of {list_trackers()}, or a function "
        "(wav [1, L], sample_rate) -> beat times in seconds"
    )


def find_beats(wav: Float[Tensor, "C L"], sample_rate: int) -> Float[ndarray, "n"]:
    """Beats by librosa (`librosa.beat.beat_track` on the onset strength, prior at 120 bpm)."""
    return track_beats(resample(wav, sample_rate, ANALYSIS_RATE), ANALYSIS_RATE)


def grid_tracker(beat_times: Times) -> Tracker:
    """A tracker that returns these times whatever it hears.

    For a wav whose beats are known exactly: a click track, a rendered stem, a real stem of another
    song as the floor. It takes the tracker's own mistakes out of the score. It says nothing of
    generated audio, whose beats nobody knows.
    """
    known = check_times(beat_times, "beat_times")

    def grid(wav: Tensor, sample_rate: int) -> ndarray:
        return known.copy()

    return grid


def tracked_beats(wav: Wav, sample_rate: int, tracker: AnyTracker = None) -> Float[ndarray, "n"]:
    """The beats of a wav, for the `..._of_times` forms: one tracking, many measures.

    Args:
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        tracker: as in `get_tracker`.

    Returns:
        Seconds; none for silence (below -60 dBFS), of which the tracker is not asked.

    Raises:
        StageLiteError: a wav that `audio.check_wav` refuses, a tracker that is not there or that
            returns no increasing times.
    """
    heard = get_tracker(tracker)
    mono = to_mono(check_wav(wav, sample_rate))
    if is_silent(mono):
        return np.zeros(0)
    return check_times(heard(mono, sample_rate), "tracked beats")


def check_and_track(
    beat_times: Times, wav: Wav, sample_rate: int, tracker: AnyTracker, at_least: int = 1
) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
    """Both sides of a score: the given beats, checked against the wav, and the tracked ones."""
    duration_s = check_wav(wav, sample_rate).shape[-1] / sample_rate
    beats = check_reference(beat_times, duration_s, "beat_times", at_least)
    return beats, tracked_beats(wav, sample_rate, tracker)
