"""The audio behind a stem: a sound file, or one stream of a .stem.mp4 (MUSDB18, Traktor).

    a.stem.mp4    audio stream 0    1      2     3      4
                  mixture           drums  bass  other  vocals       AAC, stereo, 44.1 kHz

Sound files are read with soundfile, MP4 with PyAV. A file that names its streams itself (the "stem"
box of Native Instruments' format) is believed; else the order is MUSDB18's, as drawn.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import check_wav, load_audio, resample, to_mono
from .errors import StageLiteError
from .stem_names import plain_text

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

STEM_MP4 = (".stem.mp4", ".stem.m4a")
STREAMS = ("mixture", "drums", "bass", "other", "vocals")  # of MUSDB18
EDGE_S = 0.05  # read on both sides of a part that is resampled
SETTLE = 8192  # samples before a part of an AAC stream, after which decoding no longer shows a seek
BLOCK_S = 10.0


class Info(NamedTuple):
    """What the head of a file says."""

    frames: int
    sample_rate: int  # Hz
    channels: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Track:
    """One recording that is part of a stem.

    Args:
        path: the file.
        stream: of a .stem.mp4, counted among its audio streams; None for a sound file.
    """

    path: Path
    stream: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.stream is None else f"{self.path} (stream {self.stream})"

    @functools.cached_property
    def info(self) -> Info:
        """Length, rate and channels, from the head of the file.

        Raises:
            StageLiteError: no audio that can be read.
        """
        if self.stream is not None:
            with _opened(self.path) as container:
                stream = _stream(container, self)
                seconds = (stream.duration or 0) * float(stream.time_base or 0)
                return Info(round(seconds * stream.rate), stream.rate, stream.channels)
        try:
            info = soundfile.info(self.path)
        except UnicodeEncodeError:
            raise StageLiteError(
                f"{plain_text(str(self.path))} has a name that is no valid text; rename it"
            ) from None
        except (soundfile.LibsndfileError, TypeError) as error:
            detail = getattr(error, "error_string", str(error))
            raise StageLiteError(
                f"{self.path} could not be read as audio ({detail}); expected WAV, FLAC, OGG or "
                "MP3; convert or remove it"
            ) from None
        return Info(info.frames, info.samplerate, info.channels)

    def read(self, start_s: float, length: int, sample_rate: int) -> Float[Tensor, "1 L"]:
        """A part as mono audio of L = length samples at `sample_rate`, silence after the end."""
        if length == 0 or start_s >= self.info.duration_s:
            return torch.zeros(1, length)
        rate = self.info.sample_rate
        if rate == sample_rate:
            wav = self._load(start_s, length / sample_rate)
        else:
            # Begin where samples of both rates coincide, so that a part equals that of the whole.
            common = math.gcd(rate, sample_rate)  # such places in a second
            begin_s = max(0, math.floor((start_s - EDGE_S) * common)) / common
            before = round(start_s * sample_rate) - round(begin_s * sample_rate)
            wav = self._load(begin_s, (before + length) / sample_rate + EDGE_S)
            wav = resample(wav, rate, sample_rate)[:, before:]
        return torch.nn.functional.pad(wav[:, :length], (0, max(0, length - wav.shape[-1])))

    def blocks(self, seconds: float = BLOCK_S) -> Iterator[Float[ndarray, "C _"]]:
        """The whole track, at its own rate and channels, in blocks of at most so many seconds.

        Raises:
            StageLiteError: decoding fails on the way.
        """
        if self.stream is not None:
            yield from _decoded(self, 0)
            return
        size = max(1, round(seconds * self.info.sample_rate))
        try:
            with soundfile.SoundFile(self.path) as file:
                while len(block := file.read(size, dtype="float32", always_2d=True)):
                    yield block.T
        except (soundfile.LibsndfileError, TypeError) as error:
            detail = getattr(error, "error_string", str(error))
            raise StageLiteError(f"{self.path} stops being readable ({detail})") from None

    def _load(self, start_s: float, duration_s: float) -> Float[Tensor, "1 L"]:
        if self.stream is None:
            return to_mono(load_audio(self.path, start_s, duration_s)[0])
        rate = self.info.sample_rate
        start = round(start_s * rate)
        wanted = min(max(1, round(duration_s * rate)), self.info.frames - start)
        parts, found = [], 0
        for block in _decoded(self, start):
            parts.append(block[:, : wanted - found])
            found += parts[-1].shape[1]
            if found == wanted:
                break
        if found < wanted:
            raise StageLiteError(
                f"{self} is cut short: {found} of {wanted} samples could be read; copy it again"
            )
        return to_mono(check_wav(np.concatenate(parts, axis=1), rate, name=str(self)))


def stems_of(path: str | Path) -> list[tuple[str, int]]:
    """(name, stream) of the stems in a .stem.mp4, without the mixture.

    Raises:
        StageLiteError: no MP4 file, cut short, or without five audio streams.
    """
    path = Path(path)
    with _opened(path) as container:
        found = len(container.streams.audio)
    if found != len(STREAMS):
        raise StageLiteError(
            f"{path} has {found} audio streams; expected {len(STREAMS)}: {', '.join(STREAMS)}"
        )
    names = _names_in(path) or STREAMS[1:]
    return list(zip(names, range(1, len(STREAMS)), strict=True))


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise StageLiteError(
            f"{path} could not be read as MP4 ({error.strerror}); it is cut short or no MP4 file; "
            "copy it again"
        ) from None


def _stream(container: InputContainer, track: Track) -> AudioStream:
    streams = container.streams.audio
    if track.stream >= len(streams):
        raise StageLiteError(
            f"{track.path} has {len(streams)} audio streams; asked for number {track.stream}"
        )
    return streams[track.stream]


def _decoded(track: Track, start: int) -> Iterator[Float[ndarray, "C _"]]:
    """Samples from `start` on without gaps, as far as the file says that it goes."""
    place, frames = start, track.info.frames  # place: of the next sample
    with _opened(track.path) as container:
        stream = _stream(container, track)
        per_tick = float(stream.time_base * stream.rate)  # samples
        begin = round((container.start_time or 0) / 1e6 * stream.rate)  # of all streams
        if start > SETTLE:  # a seek to the very beginning would lose the encoder's run-in
            container.seek(int((start + begin - SETTLE) / per_tick), stream=stream)
        for frame in container.decode(stream):
            samples = _as_float(frame.to_ndarray(), frame)
            first = round((frame.pts or 0) * per_tick) - begin
            if first > place:
                yield np.zeros((samples.shape[0], min(first, frames) - place), dtype=np.float32)
                place = first
            part = samples[:, place - first : max(0, frames - first)]
            if part.shape[1]:
                yield part
                place += part.shape[1]


def _as_float(samples: ndarray, frame: object) -> Float[ndarray, "C _"]:
    """Planar float samples of whatever the decoder gives (AAC: it is that already)."""
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 2.0 ** (info.bits - 1) if samples.dtype.kind == "u" else 0.0
        samples = (samples - middle) / 2.0 ** (info.bits - 1)
    return samples.astype(np.float32, copy=False)


def _names_in(path: Path) -> tuple[str, ...] | None:
    """Names of streams 1 to 4 in the box moov/udta/stem, if the file has one."""
    with open(path, "rb") as file:
        places = [(0, path.stat().st_size)]
        for wanted in (b"moov", b"udta", b"stem"):
            boxes = [box for place in places for box in _boxes(file, *place)]
            places = [(begin, end) for kind, begin, end in boxes if kind == wanted]
        if not places:
            return None
        begin, end = places[0]
        file.seek(begin)
        content = file.read(end - begin)
    try:
        names = tuple(str(stem["name"]) for stem in json.loads(content)["stems"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        return None
    return names if len(names) == len(STREAMS) - 1 else None


def _boxes(file, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, where its content begins, where it ends) of the MP4 boxes side by side."""
    while place + 8 <= end:
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", file.read(8)), 16
        elif size == 0:
            size = end - place
        if size < head or place + size > end:
            return
        yield kind, place + head, place + size
        place += size
