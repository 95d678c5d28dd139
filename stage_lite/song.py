"""A song as stems, beats and labels, and a window of it; the songs that come with the project."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import mix
from .beat_labels import Beats, beats_of_file, tracked_once
from .errors import StageLiteError
from .examples import beats_in, description_of
from .files import sha256_of, verify_registry, write_atomic
from .metronome import check_times, every_nth, tempo_of, track_beats
from .midi_beats import midi_beats
from .stem_layouts import SongFiles, find_songs

if TYPE_CHECKING:
    from .augment import AugmentedSong

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
TRACKED_S = 600.0  # beats are tracked in the first ten minutes
TRACKED_HZ = 22050  # at one rate, whatever the song is opened at
UNLABELLED = (
    "songs without beat labels: beats are tracked and every fourth one is taken for a downbeat; "
    "put beats.txt beside the stems where you know better"
)

Tracker = str | Callable[[Tensor, int], ndarray]


class Song:
    """One song as stems, beats and labels; audio is read when it is asked for.

    Args:
        files: what stem_layouts found.
        sample_rate: of all audio that comes out, Hz.
        verify: compare a file with the sha256 of song.json when it is first read.
        tracker: who finds the beats where nothing says them: "librosa", "beat-this", or a function
            (wav, sample_rate) -> beat times, or (beat times, downbeat times).

    Attributes:
        id, folder, split, sample_rate: as they say; split is None where the data set has none.
        stem_names: stems that are not known to be silent.
        chords: [(start_s, name)], empty if unknown.
        key, groove, family: labels or None; a MoisesDB genre is a family.
        labels: everything in song.json.
    """

    rate, semitones = 1.0, 0  # as recorded; see AugmentedSong

    def __init__(
        self,
        files: SongFiles,
        sample_rate: int = 32000,
        verify: bool = True,
        tracker: Tracker = "librosa",
    ):
        self.files, self.sample_rate, self.tracker = files, sample_rate, tracker
        self.id, self.folder, self.split = files.id, files.folder, files.split
        self.labels = labels = files.labels
        self.stem_names = [name for name in files.tracks if name not in files.silent]
        self.chords = [(float(start), str(name)) for start, name in labels.get("chords") or ()]
        self.key, self.groove, self.family = (labels.get(n) for n in ("key", "groove", "family"))
        self._unverified = dict(files.sha256) if verify else {}

    def __repr__(self) -> str:
        return f"Song({self.id!r}, {', '.join(self.stem_names)})"

    @functools.cached_property
    def duration_s(self) -> float:
        """Length of the longest stem."""
        if self.labels.get("duration_s") is not None:
            return float(self.labels["duration_s"])
        tracks = [track for stem in self.files.tracks.values() for track in stem]
        return max(track.info.duration_s for track in tracks)

    def lasts(self, seconds: float) -> bool:
        """Is the song at least so long? Quicker than duration_s: one long file is enough."""
        if self.labels.get("duration_s") is not None or "duration_s" in self.__dict__:
            return self.duration_s >= seconds - 1e-6
        tracks = (track for stem in self.files.tracks.values() for track in stem)
        return any(track.info.duration_s >= seconds - 1e-6 for track in tracks)

    @property
    def beats(self) -> Float[ndarray, "n"]:
        """Beat times in seconds."""
        return self._grid.times

    @property
    def downbeats(self) -> Float[ndarray, "m"]:
        """Times of the first beat of each bar."""
        return self._grid.downbeats

    @property
    def beats_source(self) -> str:
        """Who says where the beats are: a file, or the tracker and its version."""
        return self._grid.source

    @property
    def bpm(self) -> float | None:
        """Tempo; the median one where it changes."""
        return self.labels["bpm"] if "bpm" in self.labels else tempo_of(self.beats)

    @property
    def beats_per_bar(self) -> int:
        """4 for 4/4; counted from the labels, 4 where nothing is known."""
        if self.labels.get("beats_per_bar") is not None:
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
        for track in self.files.tracks[name]:
            self._verify(track.path)
            parts.append(track.read(start_s, length, self.sample_rate))
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
    def _grid(self) -> Beats:
        known = self.labelled_beats()
        return self.tracked_beats() if known is None else known

    def tracked_beats(self) -> Beats:
        """Beats as `tracker` hears them in the drums, or in the mix if there are none.

        They are kept (beat_labels.py), so that a song is tracked once. librosa hears no bars: every
        fourth of its beats is called a downbeat.
        """
        hears = beat_hearing(self.tracker)
        if self.tracker == "librosa":
            _warn_once(self.folder.parent)
        names = ["drums"] if "drums" in self.stem_names else self.stem_names
        tracks = [track for name in names for track in self.files.tracks[name]]

        def wav() -> Float[Tensor, "1 L"]:
            part = Song(self.files, TRACKED_HZ, verify=False)
            return part.mix(names, 0.0, min(self.duration_s, TRACKED_S))

        return tracked_once(tracks, self.tracker, wav, TRACKED_HZ, hears)

    def labelled_beats(self) -> Beats | None:
        """Beats from labels or files; None where they have to be tracked.

        Raises:
            StageLiteError: names the labels that are none.
        """
        files, per_bar = self.files, int(self.labels.get("beats_per_bar") or 4)
        if "beats" in self.labels:
            beats = check_times(self.labels["beats"], f"beats of {self.id}")
            downbeats = self.labels.get("downbeats")
            downbeats = every_nth(beats, per_bar) if downbeats is None else downbeats
            return Beats(beats, check_times(downbeats, f"downbeats of {self.id}"), "song.json")
        if files.beats_file is not None:
            return beats_of_file(files.beats_file, per_bar)
        if files.midi_file is not None:
            beats, downbeats = midi_beats(files.midi_file, self.duration_s)
            return Beats(beats, downbeats, files.midi_file.name)
        return None


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
    folder: str | Path,
    sample_rate: int = 32000,
    verify: bool = True,
    tracker: Tracker = "librosa",
) -> list[Song]:
    """All songs below a folder, in any layout of stem_layouts.py."""
    return [Song(files, sample_rate, verify, tracker) for files in find_songs(folder)]


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


@functools.cache
def _warn_once(folder: Path) -> None:
    """Once for a folder of songs, whatever resets the filters of warnings in between."""
    warnings.warn(UNLABELLED, stacklevel=6)


def beat_hearing(tracker: Tracker) -> Callable[[Tensor, int], ndarray | tuple[ndarray, ndarray]]:
    """The function behind a tracker: (wav, sample_rate) -> beats, or beats and downbeats.

    Raises:
        StageLiteError: an unknown name, or one whose package or weights are missing.
    """
    if tracker == "librosa":
        return track_beats
    from .metrics.trackers import get_tracker

    found = get_tracker(tracker)
    return getattr(found, "beats_and_downbeats", found)


def label_beats(folder: str | Path, tracker: Tracker = "librosa") -> list[Path]:
    """Track the beats of every song below a folder that has no labels, and write `beats.txt`.

    The files are found the next time, and can be mended by hand. Without them nothing is lost:
    tracked beats are kept in the cache of beat_labels.py.

    Returns:
        The files that were written.

    Raises:
        StageLiteError: the folder of a song cannot be written.
    """
    written = []
    for song in open_songs(folder, tracker=tracker):
        if song.labelled_beats() is not None:
            continue
        beats = song.tracked_beats()
        bars, lines = set(beats.downbeats), [f"# seconds, beat in the bar; by {beats.source}"]
        place = 0
        for beat in beats.times:
            place = 1 if beat in bars else place + 1
            lines.append(f"{beat:.3f}\t{place}")
        file = song.files.beats_place
        try:
            write_atomic(file, "\n".join(lines) + "\n")
        except OSError as error:
            raise StageLiteError(
                f"{file} cannot be written ({error.strerror}); expected a folder that may be "
                "written; leave it: tracked beats are kept in the cache anyway"
            ) from None
        written.append(file)
    return written
