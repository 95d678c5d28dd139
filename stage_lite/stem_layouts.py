"""Where the stems of a song are: Stage Lite's own folders, MoisesDB, MUSDB18 (HQ), Slakh2100.

    own        <song>/song.json + drums.ogg ...       beats, chords, text and sha256 in song.json
    MoisesDB   <provider>/<song>/data.json + drums/<track>.wav ...      genre; tracks are summed
    Slakh      train/<Track>/metadata.yaml + stems/S00.flac + all_src.mid          beats of the MIDI
    plain      <song>/drums.wav bass.wav ...          MUSDB18-HQ, or any folder of one's own stems

Beats of the last three come from a file `beats.txt`, `beats.json` or `*.beats` beside the stems
(see metronome.read_beats), else from the MIDI file, else they are tracked. Stem names of all data
sets are brought to drums, bass, keys, guitar, other (and vocals, percussion where there are any).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import StageLiteError

AUDIO = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})
MIXES = frozenset({"mix", "mixture", "master", "full", "linear_mixture"})  # not stems
SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "dev": "valid", "test": "test"}
NAMES = {  # MoisesDB folders, common file names and Slakh classes -> stems
    "drum": "drums",
    "piano": "keys",
    "keyboard": "keys",
    "keyboards": "keys",
    "organ": "keys",
    "other_keys": "keys",
    "chromatic percussion": "keys",
    "guitars": "guitar",
    "other_plucked": "other",
    "bowed_strings": "other",
    "wind": "other",
    "vocal": "vocals",
    "voice": "vocals",
}
KNOWN = frozenset({"drums", "bass", "keys", "guitar", "other", "vocals", "percussion"})


@dataclass
class SongFiles:
    """Files and labels of one song, whatever the data set."""

    id: str
    folder: Path
    tracks: dict[str, list[Path]]  # stem -> files, to be summed
    layout: str  # "own", "moisesdb", "slakh" or "plain"
    split: str | None = None
    labels: dict = field(default_factory=dict)  # as in song.json
    sha256: dict[Path, str] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()  # stems that are known to be silent throughout
    beats_file: Path | None = None
    midi_file: Path | None = None


def find_songs(folder: str | Path) -> list[SongFiles]:
    """All songs below a folder, or the one song that the folder is, sorted by path.

    Raises:
        StageLiteError: no such folder, no song in it, or labels that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StageLiteError(f"{folder} is no folder; expected a folder of songs with their stems")
    songs = []
    for path, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        read = _reader_for({name for name in files if not name.startswith(".")})
        song = read(Path(path)) if read else None
        if song is not None and song.tracks:
            songs.append(_with_beats_file(song))
            folders.clear()  # a song holds no songs
    if not songs:
        raise StageLiteError(
            f"no songs in {folder}; expected folders with song.json (Stage Lite), data.json "
            "(MoisesDB), metadata.yaml (Slakh2100), or drums.wav, bass.wav, ... (MUSDB18-HQ)"
            + _hint(folder)
        )
    doubles = len(songs) - len({song.id for song in songs})
    if doubles:  # the same names in several places: tell them apart by their path
        for song in songs:
            song.id = song.folder.relative_to(folder).as_posix()
    return songs


def _reader_for(names: set[str]) -> Callable[[Path], SongFiles | None] | None:
    if "song.json" in names:
        return _own
    if "data.json" in names:
        return _moisesdb
    if "metadata.yaml" in names:
        return _slakh
    return _plain if any(Path(name).suffix.lower() in AUDIO for name in names) else None


def _own(folder: Path) -> SongFiles:
    file = folder / "song.json"
    labels = _read_json(file)
    stems = labels.get("stems")
    if not isinstance(stems, dict) or not all(
        isinstance(stem, dict) and isinstance(stem.get("file"), str) for stem in stems.values()
    ):
        raise StageLiteError(
            f'{file} has no "stems": {{name: {{"file": ...}}}}; expected a song.json as '
            "data_samples/make writes it"
        )
    tracks, sha256 = {}, {}
    for name, stem in stems.items():
        path = folder / stem["file"]
        if Path(stem["file"]).name != stem["file"] or not path.is_file():
            raise StageLiteError(
                f"{path} is missing, yet {file} lists it; restore it, or take it out of song.json"
            )
        tracks[name] = [path]
        if "sha256" in stem:
            sha256[path] = stem["sha256"]
    return SongFiles(
        id=str(labels.get("id", folder.name)),
        folder=folder,
        tracks=tracks,
        layout="own",
        split=labels.get("split"),
        labels=labels,
        sha256=sha256,
        silent=frozenset(name for name, stem in stems.items() if stem.get("silent")),
    )


def _moisesdb(folder: Path) -> SongFiles | None:
    labels = _read_json(folder / "data.json")
    if not isinstance(labels.get("stems"), list):
        return None  # some other data.json
    tracks: dict[str, list[Path]] = {}
    for stem in labels["stems"]:
        for track in stem.get("tracks", []):
            # A recorded click would give the beat away to every mixture.
            if "click track" in str(track.get("trackType", "")).lower():
                continue
            path = folder / stem["stemName"] / f"{track['id']}.{track.get('extension', 'wav')}"
            if path.is_file():
                tracks.setdefault(_stem_name(stem["stemName"]), []).append(path)
    genre = labels.get("genre")
    return SongFiles(
        id=folder.name,
        folder=folder,
        tracks=tracks,
        layout="moisesdb",
        labels={"family": str(genre).replace("_", " ") if genre else None},
    )


def _slakh(folder: Path) -> SongFiles | None:
    import yaml

    file = folder / "metadata.yaml"
    try:
        labels = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise StageLiteError(f"{file} is no YAML ({reason}); copy it again") from None
    if not isinstance(labels, dict) or not isinstance(labels.get("stems"), dict):
        return None
    tracks: dict[str, list[Path]] = {}
    for name, stem in labels["stems"].items():
        paths = [folder / "stems" / f"{name}{suffix}" for suffix in (".flac", ".wav")]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None and stem.get("audio_rendered", True):
            kind = "drums" if stem.get("is_drum") else str(stem.get("inst_class", "other")).lower()
            kind = _stem_name(kind)
            tracks.setdefault(kind if kind in KNOWN else "other", []).append(path)
    midi = folder / "all_src.mid"
    return SongFiles(
        id=folder.name,
        folder=folder,
        tracks=tracks,
        layout="slakh",
        split=SPLITS.get(folder.parent.name.lower()),
        midi_file=midi if midi.is_file() else None,
    )


def _plain(folder: Path) -> SongFiles:
    tracks: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = path.stem.lower()
        if path.suffix.lower() in AUDIO and path.is_file() and not name.startswith("."):
            if name not in MIXES:
                tracks.setdefault(_stem_name(name), []).append(path)
    if not KNOWN & tracks.keys():
        tracks = {}  # a folder of some sound files, no stems
    split = SPLITS.get(folder.parent.name.lower())
    return SongFiles(id=folder.name, folder=folder, tracks=tracks, layout="plain", split=split)


def _stem_name(name: str) -> str:
    name = name.lower()
    return NAMES.get(name, NAMES.get(name.replace(" ", "_"), name))


def _with_beats_file(song: SongFiles) -> SongFiles:
    files = [song.folder / "beats.txt", song.folder / "beats.json"]
    files += sorted(song.folder.glob("*.beats"))
    song.beats_file = next((file for file in files if file.is_file()), None)
    return song


def _read_json(file: Path) -> dict:
    try:
        labels = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{file} is no JSON ({error}); restore or copy it again") from None
    if not isinstance(labels, dict):
        raise StageLiteError(f"{file} holds a {type(labels).__name__}; expected a JSON object")
    return labels


def _hint(folder: Path) -> str:
    if any(folder.rglob("*.stem.mp4")):
        return "; .stem.mp4 files are not read: take MUSDB18-HQ, or decode them to WAV stems"
    return ""
