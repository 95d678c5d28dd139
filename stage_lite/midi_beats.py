"""Beats and bars of a MIDI file: its tempo and time signature events, and no notes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .errors import StageLiteError

MOST_PER_S = 50.0  # beats; more is a broken file


def midi_beats(
    path: str | Path, duration_s: float
) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
    """Beat and downbeat times in [0, duration_s), in seconds.

    A beat is the denominator of the time signature, in 6/8, 9/8 and 12/8 three of them.

    Raises:
        StageLiteError: no MIDI file, cut short, or timed in frames instead of beats.
    """
    content = Path(path).read_bytes()
    try:
        ticks_per_quarter, tempi, metres = _read_events(content)
    except (IndexError, struct.error, ValueError) as error:
        raise StageLiteError(
            f"{path} could not be read as MIDI ({error}); expected a standard MIDI file"
        ) from None
    clock = _Clock(tempi, ticks_per_quarter)
    end_tick = clock.tick_at(duration_s)
    beats, downbeats = [np.zeros(0)], [np.zeros(0)]
    for (start, numerator, denominator), stop in zip(
        metres, [m[0] for m in metres[1:]] + [np.inf], strict=True
    ):
        compound = denominator >= 8 and numerator > 3 and numerator % 3 == 0
        beat_ticks = ticks_per_quarter * 4 / denominator * (3 if compound else 1)
        per_bar = numerator // 3 if compound else numerator
        count = max(0, int(np.ceil((min(stop, end_tick) - start) / beat_ticks - 1e-6)))
        if count > MOST_PER_S * duration_s + 1:
            raise StageLiteError(
                f"{path} has {count} beats of 1/{denominator} in {duration_s:.1f} s; expected a "
                "tempo that can be played; remove the file, and beats are tracked"
            )
        times = clock.seconds_at(start + np.arange(count) * beat_ticks)
        inside = times < duration_s
        beats.append(times[inside])
        downbeats.append(times[::per_bar][inside[::per_bar]])
    return np.concatenate(beats), np.concatenate(downbeats)


def _read_events(content: bytes) -> tuple[int, list[tuple[int, int]], list[tuple[int, int, int]]]:
    """Ticks per quarter; (tick, microseconds per quarter); (tick, numerator, denominator)."""
    magic, size, _, n_tracks, division = struct.unpack(">4sIHHH", content[:14])
    if magic != b"MThd":
        raise ValueError("no MThd header")
    if division & 0x8000:
        raise ValueError("timed in SMPTE frames")
    if division == 0:
        raise ValueError("no ticks in a quarter")
    tempi, metres = {0: 500_000}, {0: (4, 4)}
    place = 8 + size
    for _ in range(n_tracks):
        magic, size = struct.unpack(">4sI", content[place : place + 8])
        if place + 8 + size > len(content):
            raise ValueError("cut short")
        if magic == b"MTrk":
            _read_track(content[place + 8 : place + 8 + size], tempi, metres)
        place += 8 + size
    return division, sorted(tempi.items()), [(t, *m) for t, m in sorted(metres.items())]


def _read_track(data: bytes, tempi: dict[int, int], metres: dict[int, tuple[int, int]]) -> None:
    place, tick, status = 0, 0, 0
    while place < len(data):
        delta, place = _variable_length(data, place)
        tick += delta
        if data[place] & 0x80:  # else: running status, the last one goes on
            status = data[place]
            place += 1
        if status == 0xFF:
            kind = data[place]
            size, place = _variable_length(data, place + 1)
            value = data[place : place + size]
            if kind == 0x51 and size == 3:
                tempi[tick] = max(1, int.from_bytes(value))
            elif kind == 0x58 and size >= 2 and value[0] > 0:
                metres[tick] = (value[0], 2 ** value[1])
            place += size
        elif status in (0xF0, 0xF7):
            size, place = _variable_length(data, place)
            place += size
        elif status & 0xE0 == 0xC0:  # program change and channel pressure: one byte
            place += 1
        elif status & 0x80:
            place += 2
        else:
            raise ValueError("an event without a status byte")


def _variable_length(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = data[place]
        place += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place


class _Clock:
    """Ticks <-> seconds under a list of (tick, microseconds per quarter)."""

    def __init__(self, tempi: list[tuple[int, int]], ticks_per_quarter: int):
        self.ticks = np.array([tick for tick, _ in tempi], dtype=np.float64)
        self.per_tick = np.array([tempo for _, tempo in tempi]) / 1e6 / ticks_per_quarter
        spans = np.diff(self.ticks) * self.per_tick[:-1]
        self.seconds = np.concatenate([[0.0], np.cumsum(spans)])  # where each tempo begins

    def seconds_at(self, ticks: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        i = np.searchsorted(self.ticks, ticks, "right") - 1
        return self.seconds[i] + (ticks - self.ticks[i]) * self.per_tick[i]

    def tick_at(self, seconds: float) -> float:
        i = int(np.searchsorted(self.seconds, seconds, "right")) - 1
        return float(self.ticks[i] + (seconds - self.seconds[i]) / self.per_tick[i])
