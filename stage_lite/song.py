"""A song as stems, beats and labels, and a window of it; the songs that come with the project."""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import load_audio, mix, resample, to_mono
from .errors import StageLiteError
from .examples import beats_in, description_of
from .files import sha256_of, verify_registry, write_atomic
from .metronome import check_times, every_nth, read_beats, tempo_of, track_beats
from .midi_beats import midi_beats
from .stem_layouts import SongFiles, find_songs

if TYPE_CHECKING:
    from .augment import AugmentedSong

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
EDGE_S = 0.05  # read on both sides of a window that is resampled
TRACKED_S = 600.0  # beats are tracked in the first ten minutes


class Song:
    """One song as stems, beats and labels; audio is read when it is asked for.

    Args:
        files: what stem_layouts found.
        sample_rate: of all audio that comes out, Hz.
        verify: compare a file with the sha256 of song.json when it is first read.

    Attributes:
        id, folder, split, sample_rate: as they say; split is None where the data set has none.
        stem_names: stems that are not known to be silent.
        chords: [(start_s, name)], empty if unknown.
        key, groove, family: labels or None; a MoisesDB genre is a family.
        labels: everything in song.json.
    """

    def __init__(self, files: SongFiles, sample_rate: int = 32000, verify: bool = True):
        self.files, self.sample_rate = files, sample_rate
        self.id, self.folder, self.split = files.id, files.folder, files.split
        self.labels = labels = files.labels
        self.stem_names = [name for name in files.tracks if name not in files.silent]
        self.chords = [(float(start), str(name)) for start, name in labels.get("chords", ())]
        self.key, self.groove, self.family = (labels.get(n) for n in ("key", "groove", "family"))
        self._unverified = dict(files.sha256) if verify else {}

    def __repr__(self) -> str:
        return f"Song({self.id!r}, {', '.join(self.stem_names)})"

    @functools.cached_property
    def duration_s(self) -> float:
        """Length of the longest stem."""
        if "duration_s" in self.labels:
            return float(self.labels["duration_s"])
        return max(_duration_s(tracks[0]) for tracks in self.files.tracks.values())

    @property
    def beats(self) -> Float[ndarray, "n"]:
        """Beat times in seconds."""
        return self._grid[0]

    @property
    def downbeats(self) -> Float[ndarray, "m"]:
        """Times of the first beat of each bar."""
        return self._grid[1]

    @property
    def bpm(self) -> float | None:
        """Tempo; the median one where it changes."""
        return self.labels["bpm"] if "bpm" in self.labels else tempo_of(self.beats)

    @property
    def beats_per_bar(self) -> int:
        """4 for 4/4; counted from the labels, 4 where nothing is known."""
        if "beats_per_bar" in self.labels:
            return int(self.labels["beats_per_bar"])
        if len(self.downbeats) < 2:
            return 4
        inside = self.beats[(self.beats >= self.downbeats[0]) & (self.beats < self.downbeats[-1])]
        return max(1, round(len(inside) / (len(self.downbeats) - 1)))

    def stem(
        self, name: str, start_s: float = 0.0, duration_s: float | None = None
    ) -> Float[Tensor, "1 L"]:
        """A stem or a part of it, mono; L = duration_s * sample_rate, silence where it has ended.

        Raises:
            StageLiteError: the song has no such stem, or a file is broken; both are named.
        """
        if name not in self.files.tracks:
            raise StageLiteError(
                f"song {self.id!r} has no stem {name!r}; it has {sorted(self.files.tracks)}"
            )
        if duration_s is None:
            duration_s = self.duration_s - start_s
        if start_s < 0 or duration_s < 0:
            raise StageLiteError(
                f"asked for {duration_s} s from {start_s} s of song {self.id!r}; expected both to "
                "be at least 0"
            )
        length = round(duration_s * self.sample_rate)
        parts = []
        for path in self.files.tracks[name]:
            self._verify(path)
            parts.append(_read(path, start_s, length, self.sample_rate))
        return mix(parts)

    def mix(
        self,
        names: Sequence[str] | None = None,
        start_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Float[Tensor, "1 L"]:
        """The sum of some stems (None: of all), turned down only if it would clip."""
        names = self.stem_names if names is None else names
        return mix([self.stem(name, start_s, duration_s) for name in names])

    def text(self, stem: str) -> str:
        """What a description of this stem says: "drums, bossa nova"."""
        return description_of(self.labels, stem)

    def _verify(self, path: Path) -> None:
        expected = self._unverified.get(path)
        if expected is not None:
            found = sha256_of(path)
            if found != expected:
                raise StageLiteError(
                    f"{path} is broken: its sha256 is {found[:12]}..., song.json expects "
                    f"{expected[:12]}...; restore it (git checkout) or make the song again"
                )
            del self._unverified[path]

    @functools.cached_property
    def _grid(self) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
        files = self.files
        if "beats" in self.labels:
            beats = check_times(self.labels["beats"], f"beats of {self.id}")
            downbeats = self.labels.get("downbeats")
        elif files.beats_file is not None:
            beats, downbeats = read_beats(files.beats_file)
        elif files.midi_file is not None:
            return midi_beats(files.midi_file, self.duration_s)
        else:
            warnings.warn(
                "songs without beat labels: beats are tracked with librosa and every fourth one is "
                "taken for a downbeat; put beats.txt beside the stems where you know better",
                stacklevel=4,
            )
            return track_song(self)
        if downbeats is None:
            return beats, every_nth(beats, int(self.labels.get("beats_per_bar", 4)))
        return beats, check_times(downbeats, f"downbeats of {self.id}")


@dataclass(frozen=True)
class Window:
    """A piece of a song, for which a condition makes the context."""

    song: Song | AugmentedSong
    start_s: float
    duration_s: float
    target: str  # the stem that is to be played; a condition must not give it away
    seed: int

    def rng(self) -> np.random.Generator:
        """Randomness that depends on the window only."""
        return np.random.default_rng([self.seed, 0x5EED])

    @property
    def beat_times(self) -> Float[ndarray, "n"]:
        """Beats in the window, in seconds from its start."""
        return beats_in(self.song.beats, self.start_s, self.duration_s)

    @property
    def downbeat_times(self) -> Float[ndarray, "m"]:
        return beats_in(self.song.downbeats, self.start_s, self.duration_s)


def open_songs(
    folder: str | Path, sample_rate: int = 32000, verify: bool = True
) -> list[Song]:  # fmt: skip
    """All songs below a folder, in any layout of stem_layouts.py."""
    return [Song(files, sample_rate, verify) for files in find_songs(folder)]


def open_samples(folder: str | Path | None = None) -> list[Song]:
    """The songs that come with the project, after comparing every file with registry.txt.

    Args:
        folder: None is `data_samples` of the checkout from which stage_lite is installed.

    Raises:
        StageLiteError: the folder is not there, or names the file that is missing or broken.
    """
    folder = SAMPLES if folder is None else Path(folder)
    if not folder.is_dir():
        raise StageLiteError(
            f"no sample songs in {folder}; they come with the repository, not with the installed "
            "package; clone it, or pass its data_samples folder"
        )
    verify_registry(folder)
    return open_songs(folder, verify=False)


def split_of(song: Song) -> str:
    """The split of the data set, or else one by a hash of the id: 80 % train, 10 %, 10 %."""
    if song.split is not None:
        return song.split
    place = int.from_bytes(hashlib.sha256(song.id.encode()).digest()[:4]) / 2**32
    return "train" if place < 0.8 else "valid" if place < 0.9 else "test"


def track_song(song: Song) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
    """Beats of the drums, or of the mix if there are none; every fourth is called a downbeat."""
    names = ["drums"] if "drums" in song.stem_names else song.stem_names
    wav = song.mix(names, 0.0, min(song.duration_s, TRACKED_S))
    beats = track_beats(wav, song.sample_rate)
    return beats, every_nth(beats, 4)


def label_beats(folder: str | Path) -> list[Path]:
    """Track the beats of every song below a folder that has no labels, and write `beats.txt`.

    Tracking takes seconds a song; the files are found the next time, and can be mended by hand.

    Returns:
        The files that were written.
    """
    written = []
    for song in open_songs(folder, sample_rate=22050):
        files = song.files
        if "beats" in song.labels or files.beats_file is not None or files.midi_file is not None:
            continue
        beats, downbeats = track_song(song)
        bars, lines = set(downbeats), ["# seconds, beat in the bar; tracked with librosa"]
        place = 0
        for beat in beats:
            place = 1 if beat in bars else place + 1
            lines.append(f"{beat:.3f}\t{place}")
        write_atomic(song.folder / "beats.txt", "\n".join(lines) + "\n")
        written.append(song.folder / "beats.txt")
    return written


def _duration_s(path: Path) -> float:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise StageLiteError(
            f"{path} could not be read as audio ({error.error_string}); expected WAV, FLAC, OGG or "
            "MP3; convert or remove it"
        ) from None
    return info.frames / info.samplerate


def _read(path: Path, start_s: float, length: int, sample_rate: int) -> Float[Tensor, "1 L"]:
    if length == 0 or start_s >= _duration_s(path):
        return torch.zeros(1, length)
    rate = soundfile.info(path).samplerate
    if rate == sample_rate:
        wav = to_mono(load_audio(path, start_s, length / sample_rate)[0])
    else:
        # Begin where samples of both rates coincide, so that a part equals the part of the whole.
        common = math.gcd(rate, sample_rate)  # such places in a second
        begin_s = max(0, math.floor((start_s - EDGE_S) * common)) / common
        before = round(start_s * sample_rate) - round(begin_s * sample_rate)
        wav, _ = load_audio(path, begin_s, (before + length) / sample_rate + EDGE_S)
        wav = resample(to_mono(wav), rate, sample_rate)[:, before:]
    return torch.nn.functional.pad(wav[:, :length], (0, max(0, length - wav.shape[-1])))
