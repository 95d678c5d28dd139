"""List the grooves of MMA's library that can carry a song, and give each style file a split.

    python data_samples/make/grooves.py        # scans (2 to 5 min), rewrites grooves.json

A groove is kept when MMA can run it and it has drums and a bass line; the drum-only library "zoom"
is kept too, and bassline.py adds a bass that follows its kick drum. Whole style files go to one
split, and files whose drum patterns are nearly the same go together, so that no groove of the test
split (nor a near copy of it) is heard in training.
"""

from __future__ import annotations

import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_samples.make.families import family_of
from data_samples.make.midi import TICKS_PER_QUARTER, Midi, Track
from data_samples.make.mma import LIBRARY, MmaError, run_mma

GROOVES_JSON = Path(__file__).with_name("grooves.json")
SPLITS = {"train": 0.85, "valid": 0.05, "test": 0.10}
PROBE_BARS = 8
SAME_DRUMS = 0.9  # Jaccard similarity of drum hits above which two style files share a split


@dataclass(frozen=True)
class Groove:
    """One usable groove of MMA's library."""

    name: str  # what MMA's directive `Groove` takes, "stdlib/bossanova:BossaNova"
    family: str  # plain words, "bossa nova"
    metre: str  # "4/4", "3/4", "6/8", "12/8", "5/4"
    beats_per_bar: int  # musical beats: two dotted quarters in 6/8
    beat_ticks: int  # length of such a beat in MMA's ticks (192 to its own beat)
    bar_beats: int  # MMA's own beats in a bar, where chords can be written
    split: str  # "train", "valid" or "test"
    drums_only: bool = False  # MMA writes drums alone, the bass is ours
    fills: tuple[str, ...] = ()  # one-bar fills of the same style file

    @property
    def style_file(self) -> str:
        return self.name.split(":")[0]

    @property
    def short_name(self) -> str:
        return self.name.split(":")[1]


@lru_cache(maxsize=1)
def load_grooves() -> tuple[Groove, ...]:
    """The committed list, in a fixed order."""
    entries = json.loads(GROOVES_JSON.read_text())["grooves"]
    return tuple(Groove(**{**entry, "fills": tuple(entry["fills"])}) for entry in entries)


def is_bass(track: Track) -> bool:
    """A bass line by MMA's track family, or by its General MIDI programs."""
    if track.channel == 9:
        return False
    if track.name.upper().startswith(("BASS", "WALK", "FINGEREDBASS", "ACOUSTICBASS")):
        return True
    return all(32 <= note.program < 40 for note in track.notes)


def _probe(style_file: str, name: str) -> Midi | None:
    chords = "C Am F G7 C Am Dm7 G7".split()
    bars = "\n".join(f"{i + 1} {chord}" for i, chord in enumerate(chords))
    try:
        return run_mma(f"RndSeed 1\nTempo 120\nGroove {style_file}:{name}\n{bars}\n")
    except (MmaError, ValueError):
        return None


def _drum_hits(midi: Midi) -> frozenset[tuple[int, int]]:
    return frozenset(
        (round(note.start_ticks / 24), note.pitch)
        for track in midi.tracks
        if track.channel == 9
        for note in track.notes
    )


def _metre(bar_beats: int, signature: tuple[int, int]) -> tuple[str, int, int] | None:
    """Metre, beats per bar, ticks per beat; None when the groove's bars make no sense."""
    quarter = TICKS_PER_QUARTER
    # MMA files write 6/8 with 6 beats (eighths), 4 (of which 2 are a dotted quarter), 3 or 2.
    compound = {beats: ("6/8", 2, beats * quarter // 2) for beats in (6, 4, 3, 2)}
    if signature == (6, 8):
        return compound.get(bar_beats)
    simple = {4: ("4/4", 4, quarter), 3: ("3/4", 3, quarter), 5: ("5/4", 5, quarter)}
    simple |= {6: compound[6]}
    return simple.get(bar_beats)


def scan_library() -> list[Groove]:
    """Try every groove of the library and keep what is usable."""
    jobs = [
        (path.relative_to(LIBRARY).with_suffix("").as_posix(), name)
        for path in sorted(LIBRARY.glob("*/*.mma"))
        for name in re.findall(
            r"^\s*DefGroove[ \t]+(\S+)", path.read_text(errors="replace"), re.M | re.I
        )
    ]
    jobs = list(dict.fromkeys(jobs))
    with ThreadPoolExecutor(2) as pool:
        probes = list(pool.map(lambda job: _probe(*job), jobs))
    fills: dict[str, list[str]] = {}
    found: list[tuple[str, str, Midi]] = []
    for (style_file, name), midi in zip(jobs, probes, strict=True):
        if midi is None or not any(track.channel == 9 for track in midi.tracks):
            continue
        if re.search(r"fill", name, re.I):
            fills.setdefault(style_file, []).append(f"{style_file}:{name}")
        elif not re.search(r"intro|end|count|metronome|68-44", name, re.I):
            drums = sum(len(track.notes) for track in midi.tracks if track.channel == 9)
            alone = all(track.channel == 9 for track in midi.tracks) and "zoom/" in style_file
            alone = alone and not re.search(r"intro|ending|count", style_file)
            if drums >= 4 * PROBE_BARS and (alone or any(map(is_bass, midi.tracks))):
                found.append((style_file, name, midi))
    bar_beats: dict[str, int] = {}
    for style_file, _, midi in found:  # the last onset of a file tells how long its bars are
        last = max(note.start_ticks for track in midi.tracks for note in track.notes)
        beats = math.ceil(last / PROBE_BARS / TICKS_PER_QUARTER - 0.01)
        bar_beats[style_file] = max(beats, bar_beats.get(style_file, 0))
    split = _assign_splits(found)
    grooves = []
    for style_file, name, midi in found:
        metre = _metre(bar_beats[style_file], midi.time_signature)
        if metre and style_file.endswith("128"):  # in four triplets
            metre = ("12/8", *metre[1:])
        if metre and split[style_file]:
            grooves.append(
                Groove(
                    f"{style_file}:{name}",
                    family_of(style_file),
                    *metre,
                    bar_beats[style_file],
                    split[style_file],
                    all(track.channel == 9 for track in midi.tracks),
                    tuple(fills.get(style_file, [])),
                )
            )
    return grooves


def _assign_splits(found: list[tuple[str, str, Midi]]) -> dict[str, str]:
    """Splits of whole groups of style files, spread over the families, without any chance.

    Drum-only files come second: one that resembles files of two splits gets "" and is not used.
    """
    hits: dict[str, list[frozenset]] = {}
    for style_file, _, midi in found:
        hits.setdefault(style_file, []).append(_drum_hits(midi))

    def alike(first: str, second: str) -> bool:
        pairs = ((a, b) for a in hits[first] for b in hits[second])
        return any(len(a & b) > SAME_DRUMS * len(a | b) for a, b in pairs)

    def walk(groups: list[list[str]], split: dict[str, str]) -> None:
        """Family by family, every group goes where the most is missing."""
        count, done = dict.fromkeys(SPLITS, 0.0), 0.0
        for members in groups:
            weight = sum(len(hits[member]) for member in members)
            done += weight
            shortage = {part: SPLITS[part] * done - count[part] for part in SPLITS}
            part = "train" if len(members) > 4 else max(SPLITS, key=shortage.__getitem__)
            count[part] += weight
            split |= dict.fromkeys(members, part)

    def grouped(files: list[str]) -> list[list[str]]:
        groups: list[list[str]] = []
        for name in files:
            near = [group for group in groups if any(alike(name, other) for other in group)]
            groups = [group for group in groups if group not in near]
            groups.append(sorted([name, *(other for group in near for other in group)]))
        return sorted(groups, key=lambda group: (len(group) > 4, family_of(group[0]), group[0]))

    drums_only = {name for name in hits if name.startswith("zoom/")}
    split: dict[str, str] = {}
    walk(grouped(sorted(set(hits) - drums_only)), split)
    free = []
    for name in sorted(drums_only):
        parts = {split[other] for other in set(hits) - drums_only if alike(name, other)}
        if parts:
            split[name] = parts.pop() if len(parts) == 1 else ""
        else:
            free.append(name)
    settled = {name for name in drums_only if name in split}
    for group in grouped(free):
        parts = {split[other] for other in settled for name in group if alike(name, other)}
        if parts:
            split |= dict.fromkeys(group, parts.pop() if len(parts) == 1 else "")
    walk([group for group in grouped(free) if group[0] not in split], split)
    return split


def main() -> None:
    grooves = scan_library()
    lines = ",\n  ".join(json.dumps(asdict(groove)) for groove in grooves)
    GROOVES_JSON.write_text(f'{{"mma": "21.09", "grooves": [\n  {lines}\n]}}\n')
    for split in SPLITS:
        chosen = [groove for groove in grooves if groove.split == split]
        families = {groove.family for groove in chosen}
        files = {groove.style_file for groove in chosen}
        print(f"{split}: {len(chosen)} grooves, {len(files)} files, {len(families)} families")


if __name__ == "__main__":
    main()
