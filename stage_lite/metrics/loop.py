"""The copied loop: one bar of another song at the right tempo, over and over. A baseline.

    another song   | bar, downbeat to downbeat |
    this window    [ bar, stretched ][ bar, stretched ][ bar, str
                   ^ from the window's start, wherever its beats are

What a player gets who knows the tempo and nothing else: the sound is real, the tempo is right, and
the phase is left to chance. A model that is to be called listening has to be better than this.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import itertools
import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..audio import is_silent
from ..errors import StageLiteError
from .reference import Times, check_reference

LEAST_RATE, MOST_RATE = 0.2, 5.0  # of the time stretch


class Bar(NamedTuple):
    """A bar of a recording, in seconds from its start."""

    start_s: float
    stop_s: float
    n_beats: int


def find_bar(
    wav: Float[Tensor, "1 n"], sample_rate: int, beat_times: Times, downbeat_times: Times
) -> Bar:
    """The first whole bar in which something is heard.

    Args:
        wav: one stem.
        sample_rate: Hz.
        beat_times, downbeat_times: in seconds from the start of the wav.

    Raises:
        StageLiteError: fewer than two downbeats, or silence between all of them.
    """
    beats = check_reference(beat_times, at_least=2)
    downbeats = check_reference(downbeat_times, name="downbeat_times", at_least=2)
    for start_s, stop_s in itertools.pairwise(downbeats):
        n_beats = int(np.sum((beats > start_s - 0.01) & (beats < stop_s - 0.01)))
        part = wav[:, round(start_s * sample_rate) : round(stop_s * sample_rate)]
        if n_beats and part.shape[-1] and not is_silent(part):
            return Bar(float(start_s), float(stop_s), n_beats)
    raise StageLiteError(
        f"none of {len(downbeats) - 1} bars holds beats and sound; expected one to loop; take "
        "another window"
    )


def stretch_rate(bar: Bar, beat_s: float) -> float:
    """How many times as fast a bar has to be played for beats of `beat_s` seconds.

    Raises:
        StageLiteError: more than five times as fast or slow.
    """
    rate = (bar.stop_s - bar.start_s) / (bar.n_beats * beat_s)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise StageLiteError(
            f"a bar of {bar.n_beats} beats in {bar.stop_s - bar.start_s:.3g} s would have to be "
            f"played {rate:.3g} times as fast for beats of {beat_s:.3g} s; expected "
            f"{LEAST_RATE:g} to {MOST_RATE:g}; is one of the beat grids wrong?"
        )
    return rate


def loop_bar(
    wav: Float[Tensor, "1 n"], sample_rate: int, bar: Bar, beat_s: float, duration_s: float
) -> Float[Tensor, "1 m"]:
    """A bar, time-stretched until its beats are `beat_s` apart, repeated from 0 to `duration_s`.

    The stretch (`librosa.effects.time_stretch`, a phase vocoder) keeps the pitch and blurs hits a
    little. Copies begin at whole bars of the new tempo, so that rounding does not add up.

    Args:
        wav: holds the bar.
        sample_rate: Hz.
        bar: of `find_bar`.
        beat_s: distance of two beats in the result, seconds.
        duration_s: of the result.

    Raises:
        StageLiteError: as `stretch_rate`.
    """
    import librosa

    rate = stretch_rate(bar, beat_s)
    part = wav[0, round(bar.start_s * sample_rate) : round(bar.stop_s * sample_rate)].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short bars: n_fft is larger than the signal
        stretched = torch.from_numpy(librosa.effects.time_stretch(part, rate=rate))
    bar_s, total = bar.n_beats * beat_s, round(duration_s * sample_rate)
    looped = torch.zeros(1, total)
    for number in range(int(np.ceil(duration_s / bar_s))):
        start, stop = (round((number + i) * bar_s * sample_rate) for i in (0, 1))
        copy = stretched[: min(stop, total) - start]
        looped[0, start : start + len(copy)] = copy
    return looped.clamp(-1.0, 1.0)
