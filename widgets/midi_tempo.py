"""A tempo map as a standard MIDI file: in a music program its bar lines fall on the song's beats.

Time 0 of the file is time 0 of the audio, a beat is a quarter note, and every beat has its own
tempo event, so that a player who hurries is followed. What comes before the first downbeat is a bar
of sixteenths of its own:

    seconds   0      0.36   0.82   1.28   1.74   2.20
              |  up  |                           |
    MIDI      | 3/16 | 4/4                       | 4/4

Notebook: 00_quickstart.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from stage_lite.metronome import check_times, every_nth

TICKS = 960  # per quarter note
AT_START_S = 0.016  # a first beat this early is taken for one at the start; no tempo could reach it
MAX_BEATS = 255  # of a bar, a byte in the file


def midi_tempo_map(
    beat_times: Sequence[float], downbeat_times: Sequence[float] | None = None
) -> bytes:
    """The content of a .mid file with tempo and time signature events, and no notes.

    Args:
        beat_times: seconds, increasing, at least two.
        downbeat_times: the beats that begin a bar; None takes every fourth, from the first on.

    Returns:
        Format 0, 960 ticks a quarter note. Beats are met to a microsecond each.

    Raises:
        StageLiteError: times that do not increase.
    """
    beats = check_times(beat_times, "beat_times")
    beats = beats[beats >= 0]
    if len(beats) < 2:
        return _file([])
    downbeats = every_nth(beats) if downbeat_times is None else check_times(downbeat_times, "bars")
    first_bars = np.flatnonzero(np.isin(np.round(beats, 4), np.round(downbeats, 4)))
    bars = list(first_bars) if len(first_bars) else [0]
    # Sixteenths before the first beat, a bar of them at most: it is then a slow one.
    pickup = min(16, max(1, round(4 * beats[0] / (beats[1] - beats[0]))))
    times, ticks = [0.0, *beats], [0, *(pickup * TICKS // 4 + TICKS * np.arange(len(beats)))]
    if beats[0] < AT_START_S:
        pickup, times, ticks = 0, [0.0, *beats[1:]], list(TICKS * np.arange(len(beats)))
    beat_ticks = [int(tick) for tick in ticks[-len(beats) :]]

    events: list[tuple[int, bytes]] = []  # (tick, event)
    reached_us = 0.0
    for stop, tick, next_tick in zip(times[1:], ticks, ticks[1:], strict=False):
        quarters = (next_tick - tick) / TICKS
        per_quarter = max(1, min(2**24 - 1, round((stop * 1e6 - reached_us) / quarters)))
        reached_us += per_quarter * quarters  # what rounding left over goes into the next beat
        events.append((int(tick), b"\xff\x51\x03" + struct.pack(">I", per_quarter)[1:]))

    def signature(tick: int, numerator: int, denominator: int) -> None:
        power = denominator.bit_length() - 1
        events.append((tick, bytes([0xFF, 0x58, 4, min(numerator, MAX_BEATS), power, 24, 8])))

    if beat_ticks[bars[0]]:
        signature(0, 4 * bars[0] + pickup, 16)
    lengths = [int(n) for n in np.diff(bars)]
    lengths.append(lengths[-1] if lengths else 4)
    before = 0
    for bar, length in zip(bars, lengths, strict=True):
        if length != before:
            signature(beat_ticks[bar], length, 4)
            before = length
    return _file(sorted(events, key=lambda event: event[0]))


def _file(events: Sequence[tuple[int, bytes]]) -> bytes:
    """Header and one track of (tick, meta event)."""
    name = b"tempo"
    track, now = b"\x00\xff\x03" + bytes([len(name)]) + name, 0
    for tick, event in events:
        track += _varlen(tick - now) + event
        now = tick
    track += b"\x00\xff\x2f\x00"
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + track


def _varlen(ticks: int) -> bytes:
    """MIDI's numbers: seven bits a byte, the last one without the top bit."""
    out = [ticks & 0x7F]
    while ticks := ticks >> 7:
        out.append(0x80 | (ticks & 0x7F))
    return bytes(reversed(out))
