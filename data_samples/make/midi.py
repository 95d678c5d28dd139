"""Read the MIDI files that MMA writes: notes with ticks, track names, programs.

Only what MMA uses is understood: format 1, notes, program changes, controllers, one time signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_QUARTER = 192  # MMA's own resolution; the division of the file is checked against it


@dataclass(frozen=True)
class Note:
    """One sounding note; ticks count from the start of the file."""

    start_ticks: int
    end_ticks: int
    pitch: int  # MIDI number, 60 = middle C
    velocity: int  # 1..127
    program: int  # General MIDI, 0..127 (drums: the kit)


@dataclass
class Track:
    """One MIDI channel of MMA's output; tracks that share a channel were merged by MMA."""

    name: str  # such as "Chord-Piano"
    channel: int  # 9 = drums
    notes: list[Note] = field(default_factory=list)
    volumes: list[tuple[int, int]] = field(default_factory=list)  # (ticks, CC7/CC11 value)


@dataclass
class Midi:
    """All tracks of a file."""

    tracks: list[Track]
    time_signature: tuple[int, int]
    end_ticks: int


def read_midi(path: Path) -> Midi:
    """Read a format-1 MIDI file.

    Args:
        path: written by MMA.
    Returns:
        Notes per track; a note that is struck again before its end is ended there.
    Raises:
        ValueError: not a MIDI file or another resolution.
    """
    data = Path(path).read_bytes()
    division = int.from_bytes(data[12:14], "big")
    if data[:4] != b"MThd" or division != TICKS_PER_QUARTER:
        raise ValueError(
            f"{path}: expected a MIDI file with {TICKS_PER_QUARTER} ticks per quarter, "
            f"got header {data[:14]!r}."
        )
    position, tracks, signature, end = 14, [], (4, 4), 0
    while position < len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "big")
        chunk = data[position + 8 : position + 8 + size]
        position += 8 + size
        track, found_signature, last = _read_track(chunk)
        signature = found_signature or signature
        end = max(end, last)
        if track.notes:
            tracks.append(track)
    return Midi(tracks, signature, end)


def _read_track(chunk: bytes) -> tuple[Track, tuple[int, int] | None, int]:
    track, signature = Track("", -1), None
    ticks, status, i = 0, 0, 0
    program: dict[int, int] = {}
    sounding: dict[tuple[int, int], tuple[int, int, int]] = {}

    def close(key: tuple[int, int]) -> None:
        start, velocity, voice = sounding.pop(key)
        track.notes.append(Note(start, max(ticks, start + 1), key[1], velocity, voice))

    while i < len(chunk):
        delta, i = _varlen(chunk, i)
        ticks += delta
        if chunk[i] & 0x80:
            status = chunk[i]
            i += 1
        if status == 0xFF:
            kind = chunk[i]
            size, i = _varlen(chunk, i + 1)
            payload = chunk[i : i + size]
            i += size
            if kind == 0x03 and not track.name:
                track.name = payload.decode("latin-1").strip()
            elif kind == 0x58:
                signature = signature or (payload[0], 2 ** payload[1])
            continue
        if status in (0xF0, 0xF7):
            size, i = _varlen(chunk, i)
            i += size
            continue
        kind, channel = status >> 4, status & 15
        first = chunk[i]
        second = chunk[i + 1] if kind not in (0xC, 0xD) else 0
        i += 1 if kind in (0xC, 0xD) else 2
        if kind in (0x8, 0x9):
            track.channel = channel
            key = (channel, first)
            if key in sounding:
                close(key)
            if kind == 0x9 and second:
                sounding[key] = (ticks, second, program.get(channel, 0))
        elif kind == 0xC:
            program[channel] = first
        elif kind == 0xB and first in (7, 11):
            track.volumes.append((ticks, second))
    for key in list(sounding):
        close(key)
    track.notes.sort(key=lambda note: (note.start_ticks, note.pitch))
    return track, signature, ticks


def _varlen(chunk: bytes, i: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = chunk[i]
        i += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, i
