"""Checks of notebook 05: a click by hand, beats of a tempo curve, beat F1, tempo and octave.

Notebook: 05_metronome.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .base import NotYet, accept, call, compare

RATE = 8000  # Hz, at which every time below is a whole sample
OCTAVES = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)


def click_by_hand(function: Callable) -> None:
    """Exercise: a sound on every beat, each with its own loudness.

    Args:
        function: (sound Float[n], beat_times Float[ndarray, "m"] in s, accents Float[ndarray, "m"],
            n_samples, sample_rate Hz) -> Float[1, n_samples].
    """
    sound = torch.linspace(0.4, 0.1, 1000)
    for beats, accents, n in (
        ([0.0, 0.5], [1.0, 1.0], 8000),
        ([0.25, 0.5, 0.75], [2.0, 1.0, 0.5], 8000),
        ([0.5, 0.5625, 0.75], [1.0, 2.0, 1.0], 8000),  # the first two overlap
        ([0.125, 0.1875], [2.0, 2.0], 8000),  # and are too loud together
        ([0.0, 0.9375], [1.0, 2.0], 8000),  # the last one sticks out
        ([0.5, 1.5], [1.0, 1.0], 8000),  # and this one lies behind the end
    ):
        times, levels = np.array(beats), np.array(accents)
        what = f"clicks at {beats} s with accents {accents}"
        right = _clicks(sound, beats, accents, n)
        try:
            got = call(function, sound, times, levels, n, RATE)
        except NotYet as error:
            if beats[-1] + len(sound) / RATE > n / RATE and "raised" in str(error):
                raise NotYet(
                    f"{error}. The click at {beats[-1]} s goes on beyond the end of the track: "
                    "make the track longer by one sound, and cut it at the end"
                ) from None
            raise
        mistakes = {
            "All clicks are equally loud: multiply each by its accent": _clicks(
                sound, beats, [1.0] * len(beats), n
            ),
            "Where two clicks overlap, the second one wiped out the first. Sounds add up: "
            "track[...] += ...": _clicks(sound, beats, accents, n, add=False),
            "The sum leaves [-1, 1]; what is beyond would be cut off when it is played: "
            "clamp(-1, 1) at the end": _clicks(sound, beats, accents, n, clip=False),
            "Divided by its peak, the track would change its level with the music. Clip it: "
            "clamp(-1, 1)": right / right.abs().max(),
            "The accents are one beat late: the first beat of the list has the first "
            "accent": _clicks(sound, beats, np.roll(accents, 1), n),
        }
        compare(_row(got), right, what, "[1, n_samples]", mistakes)
    accept(function, "each click in its place, at its level, cut and clipped")


def beats_of_curve(function: Callable) -> None:
    """Exercise: the beats of a tempo that changes.

    Args:
        function: (tempo_bpm Float[ndarray, "n"], one tempo per step, step_s) -> times in s of beats
            0, 1, 2, ... in [0, n * step_s); beat 0 is at 0.
    """
    step_s = 0.01
    time = np.arange(500) * step_s
    for name, tempo in (
        ("a steady 100 bpm", np.full(200, 100.0)),
        ("120 bpm, then 60 bpm", np.repeat([120.0, 60.0], 225)),
        ("an accelerando from 60 to 171 bpm", np.linspace(60.0, 171.0, 500)),
        ("a rubato around 90 bpm", 90 + 30 * np.sin(2 * np.pi * time / 3.1)),
    ):
        right = _integrated(tempo / 60, step_s)
        end = len(tempo) * step_s
        minutes = _integrated(tempo, step_s)
        mean = np.arange(math.ceil(end * tempo.mean() / 60)) * 60 / tempo.mean()
        mistakes = {
            "Sixty times too many beats: the tempo counts beats a minute, the steps are in "
            "seconds": minutes,
            "Each beat was placed by the tempo at the beat before, which knows nothing of how the "
            "tempo changes on the way. Count beats instead: their number so far is the integral of "
            "the tempo": _stepped(tempo, step_s),
            "That is the mean tempo: as many beats, evenly spaced": mean,
            "The length of a beat was integrated, 60 / tempo. A length does not add up over time; "
            "tempo / 60, beats a second, does": _integrated(60 / tempo, step_s),
            "Beat 0 is missing; it stands at 0": right[1:],
            "Those are the edges of the steps, not the beats": np.arange(len(tempo) + 1) * step_s,
        }
        got = _times(call(function, tempo.copy(), step_s), "the beats")
        _compare_times(got, right, name, mistakes, atol=0.6 * step_s)
    accept(function, "the beats of a steady tempo, a jump, an accelerando and a rubato")


def f1_by_hand(function: Callable) -> None:
    """Exercise: beat F1.

    Args:
        function: (beat_times Float[ndarray, "n"], heard_times Float[ndarray, "m"], window_s) ->
            F1 in [0, 1].
    """
    beats = np.arange(1, 9) * 0.5
    nearby = np.sort(np.concatenate([beats, beats[2:5] + 0.05]))
    off = beats + np.array([0.01, -0.06, 0.2, 0.05, -0.02, 0.09, 0.0, -0.04])
    for name, heard, window_s in (
        ("every beat heard", beats, 0.07),
        ("some of them off", off, 0.07),
        ("the same with a narrow window", off, 0.03),
        ("half the tempo", beats[::2], 0.07),
        ("double the tempo", np.sort(np.concatenate([beats, beats + 0.25])), 0.07),
        ("between the beats", beats + 0.25, 0.07),
        ("three beats heard twice", nearby, 0.07),
        ("the first beat missed", beats[1:], 0.07),
        ("nothing heard", np.zeros(0), 0.07),
    ):
        right = _f1(beats, heard, window_s)
        got = _number(
            _called_with(function, heard, beats.copy(), heard.copy(), window_s), f"F1, {name}"
        )
        for sentence, wrong in _f1_mistakes(beats, heard, window_s).items():
            if math.isclose(got, wrong, abs_tol=1e-6) and not math.isclose(wrong, right):
                raise NotYet(f"{name}: {sentence}")
        if not math.isclose(got, right, abs_tol=1e-6):
            raise NotYet(
                f"{name}: got {got:.3f}, expected {right:.3f}: hits = pairs of a beat and a heard "
                "time at most window_s apart, nothing in two pairs; F1 = 2 hits / (beats + heard)"
            )
    accept(function, "beat F1 with every beat and every heard time counted once")


def octave_error(function: Callable) -> None:
    """Exercise: a tempo error that forgives octaves.

    Args:
        function: (asked_bpm, heard_bpm) -> (octave of 1/3, 1/2, 1, 2, 3, percent left after it).
    """
    for asked, heard in (
        (100, 102), (120, 60.6), (70, 139), (180, 61), (60, 177), (100, 247), (100, 72),
    ):  # fmt: skip
        got = call(function, float(asked), float(heard))
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise NotYet(
                f"got a {type(got).__name__}; expected two numbers: `return octave, percent`"
            )
        octave, percent = (
            _number(number, what) for number, what in zip(got, ("octave", "percent"), strict=True)
        )
        ratio = heard / asked
        right = min(OCTAVES, key=lambda o: abs(math.log(ratio / o)))
        linear = min(OCTAVES, key=lambda o: abs(ratio - o))
        turned = min(OCTAVES, key=lambda o: abs(math.log(1 / ratio / o)))
        left = 100 * (ratio / right - 1)
        what = f"asked for {asked} bpm, heard {heard} bpm"

        def is_(o: float, p: float, octave: float = octave, percent: float = percent) -> bool:
            return math.isclose(octave, o) and math.isclose(percent, p, abs_tol=1e-6)

        if is_(right, left):
            continue
        if is_(1.0, 100 * (ratio - 1)):
            raise NotYet(
                f"{what}: that forgives nothing. A listener who taps every second beat is not "
                f"wrong by half: the octave is {right:g} here"
            )
        if is_(right, 100 * (ratio - 1)):
            raise NotYet(
                f"{what}: the octave is right, and still in the percent: compare {heard} with "
                f"{right:g} x {asked}"
            )
        if is_(turned, 100 * (1 / ratio / turned - 1)):
            raise NotYet(f"{what}: turned round. Above 0 is too fast: heard / asked")
        if linear != right and is_(linear, 100 * (ratio / linear - 1)):
            raise NotYet(
                f"{what}: {ratio:g} is nearer to {linear:g} as a difference, to {right:g} as a "
                "ratio: a tempo is multiplied, so compare logarithms"
            )
        if math.isclose(octave, right) and math.isclose(percent, left / 100, abs_tol=1e-6):
            raise NotYet(f"{what}: that is a share; percent is 100 times as much")
        raise NotYet(
            f"{what}: got ({octave:g}, {percent:.3g}), expected ({right:g}, {left:.3g}): of the "
            "octaves the nearest to heard / asked, then 100 * (heard / (octave * asked) - 1)"
        )
    accept(function, "octaves told apart, and the error that is left, for seven pairs of tempi")


# --- what is right, and what comes out of the mistakes that are known -----------------------------


def _clicks(
    sound: Tensor, beats: Any, accents: Any, n: int, add: bool = True, clip: bool = True
) -> Tensor:
    track = torch.zeros(1, 4 * n)
    for beat, accent in zip(beats, accents, strict=True):
        place = slice(round(beat * RATE), round(beat * RATE) + len(sound))
        track[0, place] = accent * sound + (track[0, place] if add else 0.0)
    return track[:, :n].clamp(-1, 1) if clip else track[:, :n]


def _integrated(beats_per_s: ndarray, step_s: float) -> ndarray:
    times = step_s * np.arange(len(beats_per_s) + 1)
    phase = np.concatenate([[0.0], np.cumsum(beats_per_s * step_s)])
    return np.interp(np.arange(math.ceil(phase[-1] - 1e-9)), phase, times)


def _stepped(tempo: ndarray, step_s: float) -> ndarray:
    beats, time = [], 0.0
    while time < len(tempo) * step_s:
        beats.append(time)
        time += 60 / tempo[int(time / step_s)]
    return np.array(beats)


def _f1(beats: ndarray, heard: ndarray, window_s: float) -> float:
    from ..metrics.beats import beat_f1_of_times

    return beat_f1_of_times(beats, heard, window_s)


def _f1_mistakes(beats: ndarray, heard: ndarray, window_s: float) -> dict[str, float]:
    near = np.abs(beats[:, None] - heard[None]) <= window_s + 1e-9  # [beats, heard]
    hits = _f1(beats, heard, window_s) * (len(beats) + len(heard)) / 2
    twice = {
        "a beat that was heard twice counts twice. Take a time out once it has found its beat": (
            2 * near.any(0).sum() / (len(beats) + len(heard))
        ),
        "a beat that was heard twice counts twice. Each beat finds one time, and takes it away": (
            2 * near.sum() / (len(beats) + len(heard))
        ),
    }
    recall, precision = hits / len(beats), hits / max(1, len(heard))
    by_number = sum(abs(b - h) <= window_s for b, h in zip(beats, heard, strict=False))
    return twice | {
        "that is the share of the beats that were heard, the recall. Who taps all the time would "
        "get 1: what was heard and is no beat has to cost something": recall,
        "that is the share of what was heard that is a beat, the precision. Who taps once, and "
        "rightly, would get 1: missed beats have to cost something": precision,
        "that is the plain mean of precision and recall. F1 is the harmonic one, which the smaller "
        "of the two pulls down": (recall + precision) / 2,
        "beats are compared by their number, the third with the third. After one that is missed "
        "all others are wrong: compare each with those nearby": (
            2 * by_number / (len(beats) + len(heard))
        ),
    }


def _called_with(function: Callable, heard: ndarray, *arguments: Any) -> Any:
    """The result; where nothing was heard, a sentence about just that."""
    try:
        return call(function, *arguments)
    except NotYet as error:
        if len(heard) or "raised" not in str(error):
            raise
        raise NotYet(f"nothing heard: {error}. Where nothing was heard, F1 is 0") from None


# --- what a reader's function may have returned ---------------------------------------------------


def _row(got: Any) -> Any:
    """An array of numbers as a tensor; anything else as it is, for `compare` to name."""
    if isinstance(got, ndarray) and got.dtype.kind == "f":
        return torch.from_numpy(got).float()
    return got.float() if isinstance(got, Tensor) and got.is_floating_point() else got


def _times(got: Any, what: str) -> ndarray:
    """One list of finite times."""
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    try:
        times = np.asarray(got, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{what}: got {got!r:.60}; expected one array of times in seconds") from None
    if times.ndim != 1 or isinstance(got, str):
        raise NotYet(
            f"{what}: got the shape {list(times.shape)}; expected one array of times in seconds"
        )
    if not np.isfinite(times).all():
        raise NotYet(f"{what}: one of them is not a finite number")
    return times


def _compare_times(
    got: ndarray, right: ndarray, name: str, mistakes: Mapping[str, ndarray], atol: float
) -> None:
    def near(a: ndarray, b: ndarray) -> bool:
        return len(a) == len(b) and bool(np.allclose(a, b, rtol=0, atol=atol))

    if near(got, right):
        return
    for sentence, wrong in mistakes.items():
        if near(got, wrong) and not near(wrong, right):
            raise NotYet(f"{name}: {sentence}")
    if len(got) != len(right):
        raise NotYet(
            f"{name}: got {len(got)} beats; expected {len(right)}, those before the end at "
            f"{right[-1]:.2f} s and earlier"
        )
    worst = int(np.abs(got - right).argmax())
    raise NotYet(
        f"{name}: beat {worst} is at {got[worst]:.3f} s; expected {right[worst]:.3f} s, where the "
        f"sum of tempo / 60 x step reaches {worst}"
    )


def _number(got: Any, what: str) -> float:
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    if isinstance(got, Tensor | ndarray) and math.prod(got.shape) == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, int | float | np.integer | np.floating):
        raise NotYet(f"{what}: got a {type(got).__name__}; expected a number")
    if not math.isfinite(got):
        raise NotYet(f"{what}: got {got}; expected a finite number")
    return float(got)
