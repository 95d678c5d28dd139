"""Beats of a song: from its labels, a file beside the stems, its MIDI file, or tracked once.

    1  song.json             "beats", "downbeats"
    2  beats.txt, beats.json, *.beats, beatthis.npz      (metronome.read_beats)
    3  all_src.mid           Slakh2100 (midi_beats.py)
    4  the cache             of what was tracked before
    5  tracking              librosa, or "beat-this"

Tracking takes seconds a song, so what it finds is kept: not beside the stems, where one may not
write, but in $STAGE_LITE_CACHE/beats, else ~/.cache/stage-lite/beats, in a small JSON file whose
name is the hash of the audio that was tracked and of who tracked it. A song that moves keeps its
beats, one that changes is tracked again. Notebook: 05_metronome.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .files import sha256_of, write_atomic
from .metronome import check_times, every_nth, read_beats
from .stem_file import Track

FORMAT = 1  # of the files in the cache
PACKAGES = {"librosa": "librosa", "beat-this": "beat-this"}  # tracker -> whose version counts
SHORTEST_S = 0.5  # of audio in which a beat is looked for


@dataclass(frozen=True)
class Beats:
    """Beats and downbeats in seconds, and who says so."""

    times: Float[ndarray, "n"]
    downbeats: Float[ndarray, "m"]
    source: str  # "song.json", "beats.txt", "all_src.mid", or the tracker and its version


def cache_folder() -> Path:
    """Where results that can be had again are kept: $STAGE_LITE_CACHE, else ~/.cache/stage-lite."""
    if own := os.environ.get("STAGE_LITE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stage-lite"


def beats_of_file(path: Path, beats_per_bar: int = 4) -> Beats:
    """Beats of a label file; where it tells no downbeats, every so many beats is one.

    Raises:
        StageLiteError: names the file that holds no beats.
    """
    if path.suffix == ".npz":  # as the official STAGE keeps what Beat This found
        try:
            with np.load(path, allow_pickle=False) as arrays:
                times, downbeats = arrays["beats"], arrays["downbeats"]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise StageLiteError(
                f"{path} is no beat label file ({error}); expected arrays beats and downbeats"
            ) from None
        times = check_times(times, f"beats of {path}")
    else:
        times, downbeats = read_beats(path)
    if downbeats is None:
        downbeats = every_nth(times, beats_per_bar)
    return Beats(times, check_times(downbeats, f"downbeats of {path}"), path.name)


def tracked_once(
    tracks: Sequence[Track],
    tracker: str | Callable,
    wav: Callable[[], Float[Tensor, "1 L"]],
    sample_rate: int,
    track: Callable[[Tensor, int], ndarray],
) -> Beats:
    """Beats from the cache, else tracked and kept there.

    Args:
        tracks: whose audio is tracked; their content is the key.
        tracker: its name, or a function, whose results are not kept: its code may change.
        wav: gives the audio; called only if it is needed.
        sample_rate: of that audio, Hz.
        track: (wav, sample_rate) -> beats, or (beats, downbeats); without downbeats every fourth
            beat is called one.
    """
    named = isinstance(tracker, str)
    source = _with_version(tracker) if named else getattr(tracker, "__qualname__", repr(tracker))
    file = cache_folder() / "beats" / f"{_key(tracks, source)}.json" if named else None
    found = _read(file) if file is not None else None
    if found is not None:
        return found
    audio, times, downbeats = wav(), np.zeros(0), None
    if audio.shape[-1] >= SHORTEST_S * sample_rate and bool(audio.any()):
        heard = track(audio, sample_rate)
        times, downbeats = heard if isinstance(heard, tuple) else (heard, None)
        times = check_times(times, f"beats by {source}")
    downbeats = every_nth(times, 4) if downbeats is None else downbeats
    beats = Beats(times, check_times(downbeats, f"downbeats by {source}"), source)
    if file is not None:
        _keep(file, beats, tracks)
    return beats


def _with_version(tracker: str) -> str:
    try:
        return f"{tracker} {importlib.metadata.version(PACKAGES.get(tracker, tracker))}"
    except importlib.metadata.PackageNotFoundError:
        return tracker


def _key(tracks: Sequence[Track], source: str) -> str:
    digest = hashlib.sha256(f"{FORMAT} {source}".encode())
    for content in sorted(f"{sha256_of(track.path)} {track.stream}" for track in tracks):
        digest.update(content.encode())
    return digest.hexdigest()


def _read(file: Path) -> Beats | None:
    """What a file of the cache holds; None if it is not there or no longer whole."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        times = check_times(content["beats"], "beats")
        return Beats(times, check_times(content["downbeats"], "downbeats"), content["tracker"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        return None
    except StageLiteError:
        return None


def _keep(file: Path, beats: Beats, tracks: Sequence[Track]) -> None:
    content = {
        "tracker": beats.source,
        "tracked": sorted(str(track) for track in tracks),
        "beats": [float(time) for time in beats.times],
        "downbeats": [float(time) for time in beats.downbeats],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(content, ensure_ascii=True) + "\n")
    except OSError as error:
        warnings.warn(
            f"tracked beats cannot be kept in {file.parent} ({error.strerror}): they are tracked "
            "again the next time; name another folder in STAGE_LITE_CACHE",
            stacklevel=2,
        )
