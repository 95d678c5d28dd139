"""Where the stems of a song are: Stage Lite's own folders, MoisesDB, MUSDB18 (HQ), Slakh2100.

    own        <song>/song.json + drums.ogg ...     beats, chords, text and sha256 in song.json
    MoisesDB   <provider>/<song>/data.json + drums/<track>.wav ...    genre; tracks are summed
    Slakh      train/<Track>/metadata.yaml + stems/S00.flac + all_src.mid        beats of the MIDI
    MUSDB18    train/<Artist - Title>.stem.mp4      streams: mixture, drums, bass, other, vocals
    plain      <song>/drums.wav bass.wav ...        MUSDB18-HQ, or any folder of one's own stems

Beats of the last four come from a file `beats.txt`, `beats.json`, `*.beats` or `beatthis.npz`
beside the stems, else from the MIDI file, else they are tracked (beat_labels.py). Stem names are
brought to drums, bass, keys, guitar, other (and vocals, percussion where there are any).

Hidden files (`._drums.wav` of macOS) are no stems, a folder that is reached twice through symbolic
links is read once, and names are compared as Unicode NFC: macOS and Linux spell them differently.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import StageLiteError
from .stem_file import STEM_MP4, Track, stems_of
from .stem_names import KNOWN, MIXES, MUSDB18, SPLITS, plain_text, split_by_folder, stem_name

# Of one stem in several formats the first is taken.
AUDIO = (".wav", ".flac", ".aiff", ".aif", ".ogg", ".mp3")
LEFT_OUT = frozenset({"omitted"})  # Slakh2100-redux: songs that are there a second time


@dataclass
class SongFiles:
    """Files and labels of one song, whatever the data set."""

    id: str
    folder: Path
    tracks: dict[str, list[Track]]  # stem -> recordings, to be summed
    layout: str  # "own", "moisesdb", "slakh", "musdb18" or "plain"
    split: str | None = None
    labels: dict = field(default_factory=dict)  # as in song.json
    sha256: dict[Path, str] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()  # stems that are known to be silent throughout
    beats_file: Path | None = None
    midi_file: Path | None = None
    file: Path | None = None  # where the song is one file
    missing: dict[Path, str] = field(default_factory=dict)  # files that labels promise -> stem
    bleeding: list[Path] = field(default_factory=list)  # files in which others are heard, by label
    left_out: list[Path] = field(default_factory=list)  # files that are there in another format
    uuid: str | None = None  # of the piece: two songs of one are the same music
    expected: frozenset[str] = frozenset()  # stems that every song of the data set has

    @property
    def place(self) -> Path:
        """The song's folder; where it is one file, that file without its suffixes."""
        return self.folder if self.file is None else self.file.with_name(_bare(self.file))

    @property
    def beats_place(self) -> Path:
        """Where a file of its beats may be written."""
        return self.folder / "beats.txt" if self.file is None else Path(f"{self.place}.beats")


@dataclass
class Trouble:
    """A song that cannot be opened, or that is left out."""

    path: Path
    reason: str
    broken: bool = True

    @property
    def id(self) -> str:
        """What the song is called in tables."""
        name = self.path.name
        return plain_text(_bare(self.path) if name.lower().endswith(STEM_MP4) else name)


def find_songs(folder: str | Path, skip: Collection[str] = ()) -> list[SongFiles]:
    """All songs below a folder, or the one song that the folder is, sorted by path.

    Args:
        folder: in any mixture of layouts.
        skip: ids of songs that may be broken.

    Raises:
        StageLiteError: no such folder, no song in it, or labels that cannot be read.
    """
    songs, troubles = look_for_songs(folder)
    broken = [trouble for trouble in troubles if trouble.broken and trouble.id not in skip]
    if broken:
        more = f" ({len(broken) - 1} more like it; `stage-lite scan` lists them)"
        raise StageLiteError(broken[0].reason + (more if len(broken) > 1 else ""))
    if not songs:
        raise StageLiteError(nothing_in(folder, troubles))
    return songs


def nothing_in(folder: str | Path, troubles: Sequence[Trouble]) -> str:
    """The sentence for a folder without songs, with the nearest that was found."""
    near = f"; {troubles[0].reason}" if troubles else ""
    return (
        f"no songs in {folder}; expected folders with song.json (Stage Lite), data.json "
        "(MoisesDB), metadata.yaml (Slakh2100), or drums.wav, bass.wav, ... (MUSDB18-HQ), or "
        "files *.stem.mp4 (MUSDB18)" + near
    )


def look_for_songs(folder: str | Path) -> tuple[list[SongFiles], list[Trouble]]:
    """As `find_songs`, but what is broken is told apart instead of ending the search.

    Raises:
        StageLiteError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StageLiteError(f"{folder} is no folder; expected a folder of songs with their stems")
    songs: list[SongFiles] = []
    troubles: list[Trouble] = []
    seen: set[str] = set()

    def closed(error: OSError) -> None:
        troubles.append(Trouble(Path(error.filename), f"{error.filename}: {error.strerror}"))

    for path, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        if (real := os.path.realpath(path)) in seen:  # through a link, or a link in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        read, before = _reader_for(names), len(troubles)
        song = _try(read, Path(path), troubles)
        if song is not None or len(troubles) > before:
            folders.clear()  # a song holds no songs
        elif read is _plain:
            sounds = [name for name in names if name.lower().endswith(AUDIO)]
            reason = f"{path} holds sound files, none named as a stem: {', '.join(sounds[:4])}"
            troubles.append(Trouble(Path(path), reason, broken=False))
        songs += [] if song is None else [song]
        for name in names:
            if name.lower().endswith(STEM_MP4):
                song = _try(_stem_mp4, Path(path) / name, troubles)
                songs += [] if song is None else [song]
    songs = _without_copies(songs, troubles)
    if len({song.id for song in songs}) < len(songs):
        for song in songs:  # the same names in several places: tell them apart by their path
            song.id = plain_text(song.place.relative_to(folder).as_posix())
    return sorted(songs, key=lambda song: song.place), troubles


def _try(
    read: Callable[[Path], SongFiles] | None, path: Path, troubles: list[Trouble]
) -> SongFiles | None:
    """The song at a path, or None, with a reason where there is one to give."""
    try:
        song = read(path) if read else None
        if read is _slakh and path.parent.name.lower() in LEFT_OUT:
            reason = "in a folder of songs that are there a second time; left out"
            troubles.append(Trouble(path, f"{path} is {reason}", broken=False))
            return None
        if song is not None and not song.tracks and song.missing:
            raise StageLiteError(
                f"{path} holds none of the files that its labels promise, such as "
                f"{next(iter(song.missing))}; copy it again or take it out"
            )
    except StageLiteError as error:
        troubles.append(Trouble(path, str(error)))
        return None
    return None if song is None or not song.tracks else _with_beats_file(song)


def _without_copies(songs: list[SongFiles], troubles: list[Trouble]) -> list[SongFiles]:
    """Without each .stem.mp4 that is there as a folder of decoded stems, too."""
    folders = {song.folder for song in songs if song.file is None}
    kept = []
    for song in songs:
        if song.file is not None and {song.place, song.folder} & folders:
            reason = "is there as a folder of stems, too; that one is read"
            troubles.append(Trouble(song.file, f"{song.file} {reason}", broken=False))
        else:
            kept.append(song)
    return kept


def _reader_for(names: list[str]) -> Callable[[Path], SongFiles] | None:
    if "song.json" in names:
        return _own
    if "data.json" in names:
        return _moisesdb
    if "metadata.yaml" in names:
        return _slakh
    return _plain if any(name.lower().endswith(AUDIO) for name in names) else None


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
    _check_labels(labels, file)
    tracks, sha256 = {}, {}
    for name, stem in stems.items():
        path = _file_in(folder, stem["file"])
        if Path(stem["file"]).name != stem["file"] or path is None:
            raise StageLiteError(
                f"{folder / stem['file']} is missing, yet {file} lists it; restore it, or take it "
                "out of song.json"
            )
        tracks[name] = [Track(path)]
        if "sha256" in stem:
            sha256[path] = stem["sha256"]
    return SongFiles(
        id=str(labels.get("id", plain_text(folder.name))),
        folder=folder,
        tracks=tracks,
        layout="own",
        split=labels.get("split"),
        labels=labels,
        sha256=sha256,
        silent=frozenset(name for name, stem in stems.items() if stem.get("silent")),
    )


def _check_labels(labels: dict, file: Path) -> None:
    """What is read from song.json without a further look; beats are checked when they are used."""
    for name in ("duration_s", "bpm", "beats_per_bar"):
        value = labels.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if value is not None and not number:
            raise StageLiteError(f'{file} has "{name}": {value!r}; expected a number above 0')
    for chord in labels.get("chords") or ():
        if not isinstance(chord, list) or len(chord) != 2 or not isinstance(chord[0], int | float):
            raise StageLiteError(f"{file} has a chord {chord!r}; expected [seconds, name]")


def _moisesdb(folder: Path) -> SongFiles:
    file = folder / "data.json"
    labels = _read_json(file)
    if not isinstance(labels.get("stems"), list):
        return _plain(folder)  # some other data.json
    genre = labels.get("genre")
    song = SongFiles(
        id=plain_text(folder.name),
        folder=folder,
        tracks={},
        layout="moisesdb",
        labels={"family": str(genre).replace("_", " ") if genre else None},
    )
    for stem in labels["stems"]:
        tracks = stem.get("tracks", []) if isinstance(stem, dict) else None
        if not isinstance(tracks, list) or not all(
            isinstance(track, dict) and "id" in track and "stemName" in stem for track in tracks
        ):
            raise StageLiteError(
                f'{file} lists a stem {str(stem)[:80]!r}; expected {{"stemName": ..., "tracks": '
                '[{"id": ...}]} as in MoisesDB; copy it again'
            )
        for track in tracks:
            # A recorded click would give the beat away to every mixture.
            if "click track" in str(track.get("trackType", "")).lower().replace("_", " "):
                continue
            path = folder / stem["stemName"] / f"{track['id']}.{track.get('extension', 'wav')}"
            _add(song, stem_name(stem["stemName"]), path)
            if track.get("has_bleed"):
                song.bleeding.append(path)
    return song


def _slakh(folder: Path) -> SongFiles:
    import yaml

    file = folder / "metadata.yaml"
    try:  # the loader in C is ten times as fast; a wheel without it exists
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        labels = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=loader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise StageLiteError(f"{file} is no YAML ({reason}); copy it again") from None
    if not isinstance(labels, dict) or not isinstance(labels.get("stems"), dict):
        return _plain(folder)  # some other metadata.yaml
    midi = folder / "all_src.mid"
    uuid = labels.get("UUID")
    song = SongFiles(
        id=plain_text(folder.name),
        folder=folder,
        tracks={},
        layout="slakh",
        split=SPLITS.get(folder.parent.name.lower()),
        midi_file=midi if midi.is_file() else None,
        uuid=str(uuid) if uuid else None,
    )
    for name, stem in labels["stems"].items():
        if not isinstance(stem, dict):
            raise StageLiteError(
                f"{file} lists a stem {name!r}: {stem!r}; expected its inst_class, is_drum and "
                "audio_rendered as in Slakh2100; copy it again"
            )
        if not stem.get("audio_rendered", True):
            continue
        kind = "drums" if stem.get("is_drum") else stem_name(str(stem.get("inst_class", "other")))
        paths = [folder / "stems" / f"{name}{suffix}" for suffix in (".flac", ".wav")]
        path = next((path for path in paths if path.is_file()), paths[0])
        _add(song, kind if kind in KNOWN else "other", path)
    return song


def _stem_mp4(file: Path) -> SongFiles:
    name = plain_text(_bare(file))
    song = SongFiles(
        id=name,
        folder=file.parent,
        file=file,
        tracks={},
        layout="musdb18",
        expected=MUSDB18,
        split=split_by_folder(file.parent, name),
    )
    for stem, stream in stems_of(file):
        song.tracks.setdefault(stem_name(stem), []).append(Track(file, stream))
    return song


def _plain(folder: Path) -> SongFiles:
    name = plain_text(folder.name)
    song = SongFiles(
        id=name,
        folder=folder,
        tracks={},
        layout="plain",
        split=split_by_folder(folder.parent, name),
    )
    taken: set[str] = set()
    paths = [path for path in folder.iterdir() if path.suffix.lower() in AUDIO]
    named = [
        (plain_text(path.stem).lower(), AUDIO.index(path.suffix.lower()), path) for path in paths
    ]
    for stem, _, path in sorted(named):
        if stem == "mixture":  # so calls it MUSDB18-HQ
            song.expected = MUSDB18
        if stem.startswith(".") or stem in MIXES or path.is_dir():
            continue
        if stem in taken:  # the same in another format: once is enough
            song.left_out.append(path)
            continue
        taken.add(stem)
        _add(song, stem_name(stem), path)
    if not KNOWN & (song.tracks.keys() | set(song.missing.values())):
        return SongFiles(name, folder, {}, "plain")  # a folder of some sound files, no stems
    return song


def _add(song: SongFiles, stem: str, path: Path) -> None:
    if path.is_file():
        song.tracks.setdefault(stem, []).append(Track(path))
    else:
        song.missing[path] = stem


def _bare(file: Path) -> str:
    """The name without .stem.mp4."""
    return file.name[: -len(".stem.mp4")]


def _file_in(folder: Path, name: str) -> Path | None:
    """A file by its name, whichever way its accents are spelt on disk."""
    if (folder / name).is_file():
        return folder / name
    return next(
        (p for p in folder.iterdir() if plain_text(p.name) == plain_text(name) and p.is_file()),
        None,
    )


def _with_beats_file(song: SongFiles) -> SongFiles:
    folder, bare = song.folder, song.place.name
    if song.file is None:
        files = [folder / name for name in ("beats.txt", "beats.json", "beatthis.npz")]
        files += sorted(f for f in folder.glob("*.beats") if not f.name.startswith("."))
    else:
        files = [folder / f"{bare}{end}" for end in (".beats", ".beats.txt", ".beats.json")]
    song.beats_file = next((file for file in files if file.is_file()), None)
    return song


def _read_json(file: Path) -> dict:
    try:
        labels = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, OSError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{file} is no JSON ({error}); restore or copy it again") from None
    if not isinstance(labels, dict):
        raise StageLiteError(f"{file} holds a {type(labels).__name__}; expected a JSON object")
    return labels
