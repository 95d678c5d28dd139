"""What is broken in a folder of songs, before training finds out at hour three.

    table = sl.scan("my_songs", target="drums")
    print(table)                        # a summary, then the problems, the worst first
    table[table.problem == "silent"]    # an ordinary pandas table
    sl.StemDataset("my_songs", skip=table)      # without the broken songs

    severity   what it means                   problems
    broken     training would stop, or learn   unreadable, truncated, missing file, labels, beats,
               from what is not there          changed, sample rate, channels, not finite, scale
    odd        it works, and may not be what   silent, duplicate, different lengths, different
               you want                        rates, other rate, too short, no target, one stem,
                                               beats, overs, missing stem (of MUSDB18)
    note       good to know                    missing stem, unknown stem, bleed, left out, same
                                               name

Notebook: 04_fine_tuning.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .errors import StageLiteError
from .files import sha256_of
from .scan_table import COLUMNS, SEVERITIES, ScanTable
from .song import Song, Tracker, beat_hearing, split_of
from .stem_layouts import Trouble, look_for_songs, nothing_in
from .stem_names import KNOWN, plain_text
from .track_check import TrackCheck, check_track

LENGTH_S = 0.1  # stems of a song may differ by so much
AFTER_END_S = 1.0  # a beat may lie so far behind the end of the song
RATES = {"moisesdb": 44100, "musdb18": 44100}  # Hz; Slakh2100 is there at 16 kHz, too


def scan(
    folder: str | Path,
    *,
    target: str | None = None,
    window_s: float = 8.0,
    deep: bool = True,
    track_beats: bool = False,
    tracker: Tracker = "librosa",
    workers: int | None = None,
    progress: bool = True,
) -> ScanTable:
    """List what is broken, odd or worth knowing in a folder of songs; nothing is changed.

    Args:
        folder: of songs in any layout of stem_layouts.py.
        target: the stem to be trained; songs without it are listed, too.
        window_s: songs that are shorter are listed.
        deep: read every sample, about as long as copying the data takes; False reads heads and
            tails of files, which misses silence, copies, and damage in the middle.
        track_beats: track and keep the beats of songs without labels now, seconds a song, instead
            of during the first pass of training.
        tracker: as in StemDataset.
        workers: files that are read at once; None is the number of cores, at most 8.
        progress: a bar.

    Returns:
        A pandas table with the columns severity ("broken", "odd" or "note"), problem, song, stem,
        file, detail; no row if all is well. `table.summary` is a dict of what is there, and
        `table.broken_songs` the ids to leave out.

    Raises:
        StageLiteError: no such folder, nothing in it that looks like a song, window_s not above 0.
    """
    if not window_s > 0:
        raise StageLiteError(f"window_s is {window_s}; expected more than 0 seconds")
    if workers is not None and workers < 1:
        raise StageLiteError(f"workers is {workers}; expected at least 1")
    beat_hearing(tracker)
    found, troubles = look_for_songs(folder)
    if not found and not any(trouble.broken for trouble in troubles):
        raise StageLiteError(nothing_in(folder, troubles))
    songs = [Song(files, tracker=tracker) for files in found]
    checks = _checked(songs, deep, workers, progress)
    rows = [_row_of(trouble) for trouble in troubles]
    for song in songs:
        own = checks[song.id]
        rows += _files(song, own, deep)
        rows += _lengths_and_rates(song, own)
        rows += _stems(song, own, target)
        rows += _beats(song, own, window_s, track_beats)
    rows += _missing_stems(songs)
    rows += _other_rates(songs, checks)
    rows += _copies(songs, checks)
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    rows.sort(key=lambda row: (order[row["severity"]], row["problem"]))
    table = ScanTable(rows, columns=list(COLUMNS))
    table.summary = _summary(folder, songs, checks, rows, target, window_s, deep)
    return table


def _checked(
    songs: Sequence[Song], deep: bool, workers: int | None, progress: bool
) -> dict[str, list[tuple[str, TrackCheck]]]:
    """Song id -> (stem, what was found) of each of its recordings."""
    from tqdm import tqdm

    jobs = [(s.id, stem, t) for s in songs for stem, ts in s.files.tracks.items() for t in ts]
    found: dict[str, list[tuple[str, TrackCheck]]] = {song.id: [] for song in songs}
    workers = workers or min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        results = pool.map(lambda job: check_track(job[2], deep), jobs)
        results = tqdm(results, total=len(jobs), desc="files", disable=not progress)
        for (song_id, stem, _), check in zip(jobs, results, strict=True):
            found[song_id].append((stem, check))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return found


# --- rows ----------------------------------------------------------------------------------------


def _row(severity: str, problem: str, song: str, detail: str, stem="", file="") -> dict[str, str]:
    values = (severity, problem, song, stem, plain_text(str(file)), plain_text(detail))
    return dict(zip(COLUMNS, values, strict=True))


def _row_of(trouble: Trouble) -> dict[str, str]:
    kind = ("broken", "labels") if trouble.broken else ("note", "left out")
    if trouble.broken and trouble.path.is_file():
        kind = ("broken", "unreadable")
    return _row(*kind, trouble.id, trouble.reason, file=trouble.path)


def _files(
    song: Song, checks: Sequence[tuple[str, TrackCheck]], deep: bool
) -> Iterator[dict[str, str]]:
    for path, stem in song.files.missing.items():
        link = "a link to a file" if path.is_symlink() else "the labels promise a file"
        detail = f"{link} that is not there"
        yield _row("broken", "missing file", song.id, detail, stem, path)
    for path in song.files.left_out:
        detail = "the same stem is there in another format, which is read"
        yield _row("note", "left out", song.id, detail, file=path)
    for path in song.files.bleeding:
        yield _row("note", "bleed", song.id, "others are heard in it, says the label", file=path)
    for stem, check in checks:
        for problem, detail in check.broken:
            yield _row("broken", problem, song.id, detail, stem, check.track)
        for problem, detail in check.odd:
            yield _row("odd", problem, song.id, detail, stem, check.track)
        expected = song.files.sha256.get(check.track.path)
        if deep and expected and sha256_of(check.track.path) != expected:
            detail = "its sha256 is not the one in song.json"
            yield _row("broken", "changed", song.id, detail, stem, check.track)


def _lengths_and_rates(
    song: Song, checks: Sequence[tuple[str, TrackCheck]]
) -> Iterator[dict[str, str]]:
    whole = [(stem, check) for stem, check in checks if check.info and not check.broken]
    rates, lengths = defaultdict(set), defaultdict(set)
    for stem, check in whole:
        rates[check.info.sample_rate].add(stem)
        lengths[round(check.duration_s, 2)].add(stem)
    if len(rates) > 1:
        yield _row("odd", "different rates", song.id, _listed(rates, "{} Hz"))
    if lengths and max(lengths) - min(lengths) > LENGTH_S:
        yield _row("odd", "different lengths", song.id, _listed(lengths, "{:.2f} s"))


def _stems(
    song: Song, checks: Sequence[tuple[str, TrackCheck]], target: str | None
) -> Iterator[dict[str, str]]:
    sounds = {stem for stem, check in checks if not check.silent}
    for stem, check in checks:
        labelled = stem in song.files.silent
        if check.silent and not labelled and not check.broken:
            detail = "no second of it reaches -50 dBFS"
            yield _row("odd", "silent", song.id, detail, stem, check.track)
    for stem in sorted(song.files.tracks.keys() - KNOWN):
        detail = f"known are {', '.join(sorted(KNOWN))}; it is used under its own name"
        yield _row("note", "unknown stem", song.id, detail, stem)
    if target is not None and target not in song.stem_names:
        yield _row("odd", "no target", song.id, f"it has {', '.join(song.stem_names)}", target)
    if len(sounds & set(song.stem_names)) == 1:
        detail = f"only {', '.join(sounds)}: nothing to play along to but a click"
        yield _row("odd", "one stem", song.id, detail)


def _beats(
    song: Song,
    checks: Sequence[tuple[str, TrackCheck]],
    window_s: float,
    track_beats: bool,
) -> Iterator[dict[str, str]]:
    readable = [check.duration_s for _, check in checks if check.info]
    if not readable:
        return
    if max(readable) < window_s - 1e-6:
        detail = f"{max(readable):.2f} s; a window is {window_s:g} s"
        yield _row("odd", "too short", song.id, detail)
    file = song.files.beats_file or song.files.midi_file or song.folder
    try:
        beats = song.labelled_beats()
    except StageLiteError as error:
        yield _row("broken", "beats", song.id, str(error), file=file)
        return
    if beats is None:
        if not track_beats or any(check.broken for _, check in checks):
            return
        beats, file = song.tracked_beats(), song.folder
    if len(beats.times) == 0:
        yield _row("odd", "beats", song.id, f"no beats, says {beats.source}", file=file)
    elif beats.times[-1] > max(readable) + AFTER_END_S:
        detail = f"a beat at {beats.times[-1]:.2f} s, yet the song ends at {max(readable):.2f} s"
        yield _row("odd", "beats", song.id, detail, file=file)


def _missing_stems(songs: Sequence[Song]) -> Iterator[dict[str, str]]:
    """Stems that the data set promises, and those that most songs of a layout have."""
    by_layout = defaultdict(list)
    for song in songs:
        by_layout[song.files.layout].append(song)
    for alike in by_layout.values():
        counts = Counter(stem for song in alike for stem in song.files.tracks)
        usual = {stem for stem, count in counts.items() if count > max(1, len(alike) / 2)}
        for song in alike:
            known = song.files.tracks.keys() | set(song.files.missing.values())
            for stem in sorted(song.files.expected - known):
                detail = "every song of MUSDB18 has it"
                yield _row("odd", "missing stem", song.id, detail, stem, song.folder)
            for stem in sorted(usual - known - song.files.expected):
                detail = f"{counts[stem]} of {len(alike)} songs have it"
                yield _row("note", "missing stem", song.id, detail, stem, song.folder)


def _other_rates(
    songs: Sequence[Song], checks: dict[str, list[tuple[str, TrackCheck]]]
) -> Iterator[dict[str, str]]:
    """Songs at another rate than their data set has, or than most songs here have."""
    rates = {}
    for song in songs:
        found = {check.info.sample_rate for _, check in checks[song.id] if check.info}
        if len(found) == 1:
            rates[song.id] = found.pop()
    counts = Counter(rates.values())
    usual, n = counts.most_common(1)[0] if counts else (0, 0)
    for song in songs:
        rate, official = rates.get(song.id), RATES.get(song.files.layout)
        if rate is None:
            continue
        if official and rate != official:
            detail = f"{rate} Hz; songs of this data set have {official} Hz"
            yield _row("odd", "other rate", song.id, detail)
        elif rate != usual and n > len(rates) / 2 and not official:
            detail = f"{rate} Hz; {n} of {len(rates)} songs have {usual} Hz"
            yield _row("odd", "other rate", song.id, detail)


def _copies(
    songs: Sequence[Song], checks: dict[str, list[tuple[str, TrackCheck]]]
) -> Iterator[dict[str, str]]:
    """The same audio twice, in a song or in two; the same piece twice."""
    splits = {song.id: split_of(song) for song in songs}
    first: dict[str, tuple[str, str, TrackCheck]] = {}
    shared: dict[tuple[str, str], list[tuple[str, TrackCheck]]] = defaultdict(list)
    for song in songs:
        for stem, check in checks[song.id]:
            if check.digest is None:
                continue
            if check.digest not in first:
                first[check.digest] = (song.id, stem, check)
                continue
            other_song, other_stem, other = first[check.digest]
            if other_song == song.id:
                detail = f"the same audio as {other_stem} ({other.track.path.name})"
                yield _row("odd", "duplicate", song.id, detail, stem, check.track)
            else:
                shared[song.id, other_song].append((stem, check))
    for (song_id, other_song), copies in shared.items():
        stems = ", ".join(sorted({stem for stem, _ in copies}))
        detail = f"the same audio as in {other_song}{_leak(splits, song_id, other_song)}"
        yield _row("odd", "duplicate", song_id, detail, stems, copies[0][1].track)
    pieces: dict[str, Song] = {}
    names: dict[str, Song] = {}
    for song in songs:
        name = plain_text(song.files.place.name)
        other = names.setdefault(name, song)
        if other is not song and (song.id, other.id) not in shared:
            detail = f"called as {other.id}{_leak(splits, song.id, other.id)}"
            yield _row("note", "same name", song.id, detail, file=song.files.place)
        if song.files.uuid is None:
            continue
        other = pieces.setdefault(song.files.uuid, song)
        if other is not song and (song.id, other.id) not in shared:
            detail = f"the same MIDI file as {other.id}{_leak(splits, song.id, other.id)}"
            yield _row("odd", "duplicate", song.id, detail, file=song.folder)


def _leak(splits: dict[str, str], song: str, other: str) -> str:
    if splits[song] == splits[other]:
        return ""
    return f", which is in split {splits[other]!r}, this one in {splits[song]!r}"


def _listed(groups: dict, unit: str) -> str:
    """ "44100 Hz bass, drums; 48000 Hz keys" """
    return "; ".join(
        f"{unit.format(value)} {', '.join(sorted(groups[value]))}" for value in sorted(groups)
    )


# --- summary -------------------------------------------------------------------------------------


def _summary(
    folder: str | Path,
    songs: Sequence[Song],
    checks: dict[str, list[tuple[str, TrackCheck]]],
    rows: Sequence[dict[str, str]],
    target: str | None,
    window_s: float,
    deep: bool,
) -> dict:
    broken = {row["song"] for row in rows if row["severity"] == "broken"}
    lengths_s = {
        song: max((check.duration_s for _, check in own), default=0.0)
        for song, own in checks.items()
    }
    infos = [check.info for own in checks.values() for _, check in own if check.info]
    usable = [
        song.id
        for song in songs
        if song.id not in broken
        and lengths_s[song.id] >= window_s - 1e-6
        and (target is None or _sounds(target, song, checks[song.id]))
    ]
    sources = Counter(_beats_source(song) for song in songs)
    return {
        "folder": str(folder),
        "deep": deep,
        "target": target,
        "window_s": window_s,
        "songs": len(songs),
        "hours": sum(lengths_s.values()) / 3600,
        "files": sum(len(own) for own in checks.values()),
        "layouts": dict(Counter(song.files.layout for song in songs)),
        "splits": dict(Counter(split_of(song) for song in songs)),
        "splits_by_hash": sum(song.split is None for song in songs),
        "stems": dict(Counter(s for song in songs for s in song.stem_names).most_common()),
        "sample_rates": dict(Counter(info.sample_rate for info in infos).most_common()),
        "channels": dict(Counter(info.channels for info in infos).most_common()),
        "beats": dict(sources.most_common()),
        "usable_songs": usable,
        "broken_songs": sorted(broken),
        "problems": {
            severity: dict(Counter(r["problem"] for r in rows if r["severity"] == severity))
            for severity in SEVERITIES
        },
    }


def _sounds(target: str, song: Song, checks: Sequence[tuple[str, TrackCheck]]) -> bool:
    heard = {stem for stem, check in checks if not check.silent}
    return target in song.stem_names and target in heard


def _beats_source(song: Song) -> str:
    if "beats" in song.labels:
        return "labels"
    if song.files.beats_file is not None:
        return "files"
    return "MIDI" if song.files.midi_file is not None else "to be tracked"
