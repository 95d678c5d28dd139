"""One recording read from end to end: is it whole, does it sound, is it a copy of another?

Used by scan.py. The head of a file is not believed: a WAV file that was cut short says how long it
was, FLAC stops in the middle, OGG lacks its last page.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .audio import MAX_CHANNELS, MAX_PEAK, SAMPLE_RATES
from .conditions import SILENCE_DB
from .errors import StageLiteError
from .stem_file import Info, Track

MP3_SHARE = 0.9  # its length is an estimate where there is no index
OVER = 1.0 + 1e-4  # peak above which samples are clipped when they are read


@dataclass
class TrackCheck:
    """What was found in one recording."""

    track: Track
    info: Info | None = None  # None: it cannot be opened
    duration_s: float = 0.0  # as far as it could be read
    silent: bool = False  # no second of it reaches -50 dBFS
    digest: str | None = None  # of its samples at 16 bit, mixed to mono; None for silence
    broken: list[tuple[str, str]] = field(default_factory=list)  # (problem, detail)
    odd: list[tuple[str, str]] = field(default_factory=list)


def check_track(track: Track, deep: bool = True) -> TrackCheck:
    """Read a recording; its faults are collected, none is raised.

    Args:
        track: a sound file or a stream.
        deep: read all samples; False reads the head and the tail of the file only, which is quick
            and misses silence, copies, and damage in the middle.
    """
    check = TrackCheck(track)
    try:
        if track.path.stat().st_size == 0:
            check.broken.append(("unreadable", "empty file (0 bytes)"))
            return check
        info = check.info = track.info
    except StageLiteError as error:
        check.broken.append(("unreadable", str(error)))
        return check
    except OSError as error:
        check.broken.append(("unreadable", f"{track.path}: {error.strerror}"))
        return check
    check.duration_s = info.duration_s
    lowest, highest = SAMPLE_RATES
    if not lowest <= info.sample_rate <= highest:
        check.broken.append(("sample rate", f"{info.sample_rate} Hz; {lowest} to {highest} Hz"))
    if info.channels > MAX_CHANNELS:
        check.broken.append(("channels", f"{info.channels} channels; at most {MAX_CHANNELS}"))
    if info.frames == 0:
        check.broken.append(("unreadable", "no samples"))
        return check
    cut = _cut_short(track.path)
    if cut:
        check.broken.append(("truncated", cut))
    if deep:
        _listen(check, info)
    return check


def _listen(check: TrackCheck, info: Info) -> None:
    digest, frames, peak, finite = hashlib.blake2b(digest_size=16), 0, 0.0, True
    loudest, power, n = 0.0, 0.0, 0  # of the loudest second; of the running one
    stopped = None
    try:
        for block in check.track.blocks(1.0):
            finite = finite and bool(np.isfinite(block).all())
            mono = block.mean(axis=0)
            peak = max(peak, float(np.abs(block).max()))
            power, n = power + float(np.square(mono, dtype=np.float64).sum()), n + len(mono)
            if n >= info.sample_rate:
                loudest, power, n = max(loudest, power / n), 0.0, 0
            frames += len(mono)
            if finite:
                scaled = np.round(np.clip(mono, -1.0, 1.0) * 32767)
                digest.update(scaled.astype("<i2").tobytes())
    except StageLiteError as error:
        stopped = str(error)
    loudest = max(loudest, power / n) if n else loudest
    check.duration_s = frames / info.sample_rate
    share = MP3_SHARE if check.track.path.suffix.lower() == ".mp3" else 1.0
    is_cut = any(problem == "truncated" for problem, _ in check.broken)
    if not is_cut and (stopped or frames < share * info.frames):
        detail = f"{check.duration_s:.2f} of {info.duration_s:.2f} s can be read"
        check.broken.append(("truncated", detail + (f" ({stopped})" if stopped else "")))
    if not finite:
        check.broken.append(("not finite", "NaN or infinite samples"))
    elif peak > MAX_PEAK:
        check.broken.append(("scale", f"samples up to {peak:.4g}; expected [-1, 1]"))
    elif peak > OVER:
        check.odd.append(("overs", f"samples up to {peak:.3g}, clipped to 1 when they are read"))
    check.silent = not loudest > 10 ** (SILENCE_DB / 10)
    if finite and not check.silent:
        check.digest = digest.hexdigest()


def _cut_short(path: Path) -> str | None:
    """A sentence if the file ends before its own head or pages say so."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
            if start[:4] == b"RIFF" and start[8:] == b"WAVE":
                return _wav_cut_short(file, path.stat().st_size)
            if start[:4] == b"OggS":
                file.seek(max(0, path.stat().st_size - 65_536 - 282))  # a page is no longer
                tail = file.read()
                last = tail.rfind(b"OggS")
                if last < 0 or len(tail) < last + 6 or not tail[last + 5] & 4:
                    return "its last page is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _wav_cut_short(file, size: int) -> str | None:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            # 0 and 2^32 - 1: written to a pipe, its length was not known
            if length not in (0, 0xFFFFFFFF) and place + 8 + length > size:
                return f"{size - place - 8} of {length} bytes of samples are there"
            return None
        place += 8 + length + length % 2
    return None
