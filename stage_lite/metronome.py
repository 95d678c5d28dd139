"""The metronome: tempo curve -> beats and bars -> click track; beat labels of files and of audio.

Times are in seconds and increase. Notebook: 05_metronome.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError

CLICK_HZ = 1000.0
CLICK_S = 0.1  # length of one click, over which it falls by 2 ** -10 (60 dB)
TEMPI_BPM = (10.0, 1000.0)  # lowest and highest tempo that is taken

Tempo = float | int | Sequence[tuple[float, float]] | Callable[[float], float]


def click_track(
    beat_times: Float[ndarray, "n"] | Sequence[float],
    downbeat_times: Float[ndarray, "m"] | Sequence[float] | None = None,
    *,
    duration_s: float,
    sample_rate: int = 32000,
) -> Float[Tensor, "1 L"]:
    """A metronome as STAGE hears it in training.

    A 1000 Hz click on every beat, the same click added a second time on downbeats (about twice as
    loud), the sum clipped to [-1, 1].

        beats      |     |     |     |     |
        downbeats  |                       |
        level      2     1     1     1     2   (then clipped)

    Args:
        beat_times: seconds, increasing; those outside [0, duration_s) make no sound.
        downbeat_times: the beats that begin a bar; None leaves all clicks equal.
        duration_s: length of the result; clicks are cut at its end.
        sample_rate: Hz.

    Source: facts on STAGE, arXiv:2504.05690; the click is librosa's (`librosa.clicks`).
    """
    if not 0 <= duration_s < float("inf"):
        raise StageLiteError(f"click_track got duration_s = {duration_s}; expected at least 0")
    length = round(duration_s * sample_rate)
    time = np.arange(round(CLICK_S * sample_rate))
    decay = np.logspace(0, -10, num=len(time), base=2.0)
    click = decay * np.sin(2 * np.pi * CLICK_HZ / sample_rate * time)
    track = np.zeros(length + len(click))
    for name, times in (("beat_times", beat_times), ("downbeat_times", downbeat_times)):
        for start in (check_times(times, name) * sample_rate).astype(np.int64):
            if 0 <= start < length:
                track[start : start + len(click)] += click
    return torch.from_numpy(track[None, :length].clip(-1.0, 1.0).astype(np.float32))


def beat_grid(
    bpm: Tempo, beats_per_bar: int = 4, *, duration_s: float, start_s: float = 0.0
) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
    """Beats and downbeats of a tempo or a tempo curve.

    Args:
        bpm: one tempo; or points (time_s, bpm), joined by straight lines and held before the first
            and after the last; or a function of time_s.
        beats_per_bar: 4 for 4/4, 3 for 3/4.
        duration_s: beats are in [0, duration_s).
        start_s: time of one downbeat, the start offset; beats before it are counted backwards.

    Returns:
        Beat times and downbeat times in seconds; every downbeat is a beat.

        >>> beat_grid(120, 3, duration_s=2.0)
        (array([0. , 0.5, 1. , 1.5]), array([0. , 1.5]))
    """
    if not 0 <= duration_s < float("inf"):
        raise StageLiteError(f"beat_grid got duration_s = {duration_s}; expected at least 0")
    if not np.isfinite(start_s):
        raise StageLiteError(f"beat_grid got start_s = {start_s}; expected a time in seconds")
    if isinstance(beats_per_bar, bool) or beats_per_bar < 1 or beats_per_bar != int(beats_per_bar):
        raise StageLiteError(
            f"beat_grid got beats_per_bar = {beats_per_bar!r}; expected a whole number from 1"
        )
    if isinstance(bpm, int | float | np.number):
        _check_tempi(np.array([bpm], dtype=float))
        first = int(np.ceil(-start_s * bpm / 60 - 1e-9))
        last = int(np.ceil((duration_s - start_s) * bpm / 60 - 1e-9))
        numbers = np.arange(first, last)
        beats = start_s + numbers * 60 / bpm
    else:
        times, tempi = _curve(bpm, duration_s, start_s)
        steps = np.diff(times) * (tempi[1:] + tempi[:-1]) / 2 / 60  # beats in each step
        phase = np.concatenate([[0.0], np.cumsum(steps)])
        phase -= np.interp(start_s, times, phase)  # 0 at the downbeat
        numbers = np.arange(int(np.ceil(phase[0] - 1e-9)), int(np.floor(phase[-1] + 1e-9)) + 1)
        beats = np.interp(numbers, phase, times)
        inside = (beats > -1e-9) & (beats < duration_s - 1e-9)
        numbers, beats = numbers[inside], beats[inside]
    beats = np.maximum(beats, 0.0)
    return beats, beats[numbers % int(beats_per_bar) == 0]


def tempo_of(beat_times: Float[ndarray, "n"] | Sequence[float]) -> float | None:
    """Tempo in bpm by the median distance of the beats; None for fewer than two beats."""
    times = check_times(beat_times, "beat_times")
    return float(60 / np.median(np.diff(times))) if len(times) > 1 else None


def every_nth(beat_times: Float[ndarray, "n"], beats_per_bar: int = 4) -> Float[ndarray, "m"]:
    """Downbeats under the assumption that the first beat begins a bar."""
    return check_times(beat_times, "beat_times")[::beats_per_bar]


def read_beats(path: str | Path) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"] | None]:
    """Beats of a label file.

    Either JSON with "beats" and, if known, "downbeats"; or text with one beat a line: its time in
    seconds and, after a space, tab or comma, its number in the bar (1 = downbeat), as Beat This and
    mir_eval write it. Lines that begin with # are skipped.

    Returns:
        Beats, and downbeats or None if the file does not tell them.

    Raises:
        StageLiteError: names the file and the line that is no beat.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{path} could not be read as beat labels ({error})") from None
    if text.lstrip().startswith("{"):
        try:
            labels = json.loads(text)
            beats, downbeats = labels["beats"], labels.get("downbeats")
        except (json.JSONDecodeError, KeyError) as error:
            raise StageLiteError(
                f'{path} is no beat label file ({error!r}); expected JSON with "beats": [seconds]'
            ) from None
        downbeats = None if downbeats is None else check_times(downbeats, f"downbeats of {path}")
        return check_times(beats, f"beats of {path}"), downbeats
    beats, places = [], []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            beats.append(float(fields[0]))
            places.append(int(float(fields[1])) if len(fields) > 1 else None)
        except ValueError:
            raise StageLiteError(
                f"{path}, line {number}, is {line!r}; expected a time in seconds and, if known, "
                "the beat's number in the bar"
            ) from None
    times = check_times(beats, f"beats of {path}")
    if not places or None in places:
        return times, None
    return times, times[np.array(places) == 1]


def track_beats(wav: Float[Tensor, "C L"], sample_rate: int) -> Float[ndarray, "n"]:
    """Beats of audio by librosa's beat tracker; no downbeats.

    Good enough for steady pop drums; half and double tempo and off-beats are common mistakes, so
    put labels next to your songs where you have them. Empty for silence.
    """
    import librosa

    mono = wav.mean(dim=0).numpy()
    if not np.any(mono):
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short audio: n_fft is larger than the signal
        _, beats = librosa.beat.beat_track(y=mono, sr=sample_rate, units="time")
    return np.asarray(beats, dtype=np.float64)


def check_times(times: ndarray | Sequence[float] | None, name: str) -> Float[ndarray, "n"]:
    """Times as an array; None as an empty one.

    Raises:
        StageLiteError: not one list of finite, increasing numbers; names the first that is not.
    """
    if times is None:
        return np.zeros(0)
    try:
        values = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError):
        raise StageLiteError(f"{name} is {times!r}; expected a list of seconds") from None
    if values.ndim != 1 or not np.isfinite(values).all():
        raise StageLiteError(
            f"{name} has shape {values.shape}; expected one list of finite times in seconds"
        )
    steps = np.diff(values)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        raise StageLiteError(
            f"{name} does not increase: entry {i} is {values[i]:.4g} s, entry {i + 1} is "
            f"{values[i + 1]:.4g} s; sort the times and drop doubles"
        )
    return values


def _curve(bpm: Tempo, duration_s: float, start_s: float) -> tuple[ndarray, ndarray]:
    # Every point of the curve is on the time grid, on which the tempo is then linear.
    begin, end = min(0.0, start_s), max(duration_s, start_s)
    grid = np.linspace(begin, end, max(2, int((end - begin) * 1000) + 1))
    if callable(bpm):
        tempi = np.array([float(bpm(float(t))) for t in grid])
    else:
        points = np.asarray(bpm, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            raise StageLiteError(
                f"beat_grid got bpm = {bpm!r}; expected a number, a list of (time_s, bpm), or a "
                "function of time_s"
            )
        point_times = check_times(points[:, 0], "times of the tempo curve")
        corners = point_times[(point_times > begin) & (point_times < end)]
        grid = np.unique(np.concatenate([grid, corners]))
        tempi = np.interp(grid, point_times, points[:, 1])
    _check_tempi(tempi)
    return grid, tempi


def _check_tempi(tempi: ndarray) -> None:
    lowest, highest = TEMPI_BPM
    wrong = ~((tempi >= lowest) & (tempi <= highest))  # NaN is wrong too
    if wrong.any():
        raise StageLiteError(
            f"beat_grid got a tempo of {tempi[wrong][0]:g} bpm; expected {lowest:g} to {highest:g}"
        )
