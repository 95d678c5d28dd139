"""Seeded random chord charts: sections, cadences, turnarounds, in any key.

A chart is kept apart by what it says, not by its seed: the hash of its roman numerals decides which
split may use it, so that no chart of the test split is heard in training in any key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

SPLIT_SHARES = {"train": 0.85, "valid": 0.05, "test": 0.10}

_SHARP = "C C# D D# E F F# G G# A A# B".split()
_FLAT = "C Db D Eb E F Gb G Ab A Bb B".split()
_FLAT_MAJOR = {1, 3, 5, 8, 10}  # tonics (pitch classes) that are spelt with flats
_FLAT_MINOR = {0, 2, 3, 5, 7, 10}

# Degrees: semitones above the tonic, then the quality. "0 9m 5 7" is I vi IV V.
# "|" parts bars, two chords in a bar share it; every loop is 2, 4, 8 or 12 bars long.
_MAJOR_POP = [
    "0|7|9m|5", "0|9m|5|7", "9m|5|0|7", "0|5|9m|7", "0|5|7|5", "0|7|5|7", "0|2m|5|7", "0|4m|5|7",
    "5|7|4m|9m", "0|0|5|7", "0|10|5|0", "0|5|0|7", "5|0|7|9m", "0|4m|9m|5", "0|7|2m|5", "2m|5|0|0",
    "0 7|9m 4m|5 0|2m 7", "0|7 9m|5|7", "0|0M7|07|5", "0add9|9m7|5M7|7sus4 7", "0|5|2m|7",
    "0|9m 4m|5|5 7", "0|5 7|9m|5 7", "5M7|4m7|2m7|0M7", "0|4|9m|5", "0|0|7|7|5|5|0|7",
    "0|7|9m|4m|5|0|5|7",
]  # fmt: skip
_MINOR_POP = [
    "0m|8|3|10", "0m|10|8|7", "0m|10|8|10", "0m|5m|8|7", "0m|8|5m|7", "0m|3|10|5", "0m|7|0m|7",
    "0m|5m|7m|0m", "0m 10|8 7|0m 10|8 7", "8|10|0m|0m", "0m|0m|5m|7", "0m|3|8|10", "0m7|5m7|10|3",
    "0m|10|3|8", "0m9|8M7|5m7|7m7", "0m|8|10|5", "0m|5m|10 8|7", "0m|0m|10|10|8|8|7|7",
]  # fmt: skip
_JAZZ_MAJOR = [
    "2m7|77|0M7|0M7", "2m7 77|0M7", "0M7 97|2m7 77", "0M7|9m7|2m7|77", "0M7|97|2m7|77b9",
    "4m7 97|2m7 77|0M7 5M7|2m7 77", "0M7|0M7|2m7|77|4m7|97|2m7|77", "0M7|57|4m7 97|2m7 77",
    "0M7|2m7 4m7|5M7|10 7", "0M7|6m7b5 117|4m7 97|2m7 77", "2m9|713|06|97b9", "2m7|1 7|0M7|97",
    "0M7|0m7 57|10M7|10m7 37|8M7|2m7b5 77b9", "0M7|47|9m7|2 7|2m7|77|0M7|2m7 77",
    "0M9|5 9|0M9|7sus4 7",
]  # fmt: skip
_JAZZ_MINOR = [
    "2m7b5|77b9|0m6|0m6", "0m7|5m7|2m7b5|77b9", "0m7 97b9|2m7b5 77b9", "0m6|0m6|5m7|10 7|3M7|8M7",
    "5m7|10 7|3M7|8M7|2m7b5|77b9|0m6|0m6", "0m7|8 7|77b9|0m7", "0m7|0mM7|0m7|0m6",
]  # fmt: skip
_BLUES = [
    "07|07|07|07|57|57|07|07|77|57|07|77", "07|57|07|07|57|57|07|97|2m7|77|07|77",
    "07|57|07|5m7 10 7|57|6dim7|07|4m7b5 97|2m7|77|07 97|2m7 77",
    "07|07|07|07|57|57|07|07|7 7|57|07|07",
]  # fmt: skip
_MINOR_BLUES = [
    "0m7|0m7|0m7|0m7|5m7|5m7|0m7|0m7|8 7|77|0m7|77",
    "0m7|5m7|0m7|0m7|5m7|5m7|0m7|0m7|2m7b5|77b9|0m7|77",
]  # fmt: skip
_MODAL = [
    "0m7|5 7|0m7|5 7", "0m7|0m7|2m7|0m7", "0|10|0|10", "0|2|0|2", "0m|1|0m|1", "0m|10|0m|10",
    "07|10|5|07", "0m7|0m7|0m7|0m7|3M7|3M7|0m7|0m7", "0|1|3|1", "0m11|5 9|0m11|5 9", "07|07|37|37",
    "0M7|2|0M7|2",
]  # fmt: skip
_WALTZ = [
    "0|0|7 7|7 7|7 7|7 7|0|0", "0|9m|2m|7 7", "0|4m|5|0|5|0|2 7|7 7", "0|5|0|7 7", "0m|5m|7 7|0m",
    "0m|0m|5m|0m|2m7b5|7 7|0m|7 7", "0|0 7|5|5m|0|9 7|2m 7 7|0",
]  # fmt: skip
_FOLK = [
    "0|5|0|7", "0|0|5|0|0|0|7|7", "0|5|0|0|5|0|7 7|0", "0|10|5|0", "0|0|0|7|7|7|7|0", "0|5|7 7|0",
    "0m|10|0m|7", "0|2 7|7 7|0",
]  # fmt: skip
_DEGREES = {str(degree) for degree in range(12)}  # plain triads; "77" is a seventh on degree 7
_ENDINGS = ["5|0", "7|0", "2m7 77|0", "5 7|0", "5m|0", "10|0"]
_ENDINGS_MINOR = ["7|0m", "5m|0m", "8 10|0m", "2m7b5 77|0m", "10|0m"]


@dataclass(frozen=True)
class Bar:
    """One bar: one or two chords, the second one from the middle of the bar."""

    chords: tuple[str, ...]  # "Am7", "F#m7b5"; root, then MMA's and everybody's quality


@dataclass(frozen=True)
class Section:
    """A run of bars with a letter, such as A."""

    letter: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Chart:
    """A whole song's chords."""

    key: str  # "Eb major"
    sections: tuple[Section, ...]
    romans: str  # the sections without the key: what a chart is told apart by

    @property
    def n_bars(self) -> int:
        return sum(len(section.bars) for section in self.sections)


def split_of_romans(romans: str) -> str:
    """The one split that may use a chart with these roman numerals."""
    draw = int.from_bytes(hashlib.sha256(romans.encode()).digest()[:6], "big") / 2**48
    for split, share in SPLIT_SHARES.items():
        if draw < share:
            return split
        draw -= share
    return "test"


def _banks(style: str) -> tuple[list[str], list[str]]:
    """Major and minor loops that suit a groove family."""
    if style in ("jazz", "swing", "big band", "gypsy jazz", "bossa nova", "jazz waltz", "fusion",
                 "jazz in five", "foxtrot", "show tune"):  # fmt: skip
        return _JAZZ_MAJOR * 3 + _MAJOR_POP + _BLUES, _JAZZ_MINOR * 3 + _MINOR_POP + _MINOR_BLUES
    if style in ("blues", "boogie", "shuffle", "rock and roll", "twist"):
        return _BLUES * 6 + _MAJOR_POP + _FOLK, _MINOR_BLUES * 5 + _MINOR_POP + _MODAL
    if style in ("waltz", "pop waltz", "polka", "march"):
        return _WALTZ[:4] * 2 + _FOLK[:6] + _MAJOR_POP, _WALTZ[4:6] * 3 + _MINOR_POP
    if style in ("country", "folk", "bluegrass", "zydeco", "gospel", "western swing", "calypso"):
        return _FOLK[:6] * 3 + _MAJOR_POP + _BLUES[:1], _MINOR_POP + ["0m|10|0m|7"] * 3
    if style in ("techno", "house", "dance", "ambient", "funk", "metal", "hip hop"):
        return _MODAL * 2 + _MAJOR_POP, _MODAL * 2 + _MINOR_POP * 2
    return _MAJOR_POP * 3 + _FOLK[:4] + _JAZZ_MAJOR, _MINOR_POP * 3 + _MODAL + _JAZZ_MINOR


def make_chart(seed: str, split: str, n_bars: int, style: str = "pop") -> Chart:
    """A random chart that belongs to `split`.

    Args:
        seed: any text; equal seeds give equal charts.
        split: "train", "valid" or "test"; see `split_of_romans`.
        n_bars: wanted length; the chart has exactly as many.
        style: groove family, which biases the loops.
    Returns:
        Two kinds of sections (verse A and change B) or one, with an ending now and then.
    Raises:
        ValueError: unknown split or fewer than 2 bars.
    """
    if split not in SPLIT_SHARES or n_bars < 2:
        raise ValueError(
            f"make_chart: expected a split of {list(SPLIT_SHARES)} and n_bars >= 2, "
            f"got {split!r} and {n_bars!r}."
        )
    for attempt in range(10_000):
        rng = Random(f"chart/{seed}/{attempt}")
        minor = rng.random() < 0.42
        plan = _plan(rng, n_bars, _banks(style)[minor], minor)
        romans = ("minor " if minor else "major ") + " ; ".join(
            letter + ":" + "|".join(bars) for letter, bars in plan
        )
        if split_of_romans(romans) == split:
            break
    else:
        raise ValueError(f"make_chart: no chart for split {split!r} in 10,000 tries.")
    tonic = rng.randrange(12)
    names = _FLAT if tonic in (_FLAT_MINOR if minor else _FLAT_MAJOR) else _SHARP
    sections = tuple(
        Section(letter, tuple(Bar(_spell(bar, tonic, names)) for bar in bars))
        for letter, bars in plan
    )
    return Chart(f"{names[tonic]} {'minor' if minor else 'major'}", sections, romans)


def _plan(rng: Random, n_bars: int, bank: list[str], minor: bool) -> list[tuple[str, list[str]]]:
    verse = _vary(rng, rng.choice(bank).split("|"))
    change = _vary(rng, rng.choice(bank).split("|"))
    size = 4 if len(verse) <= 4 else len(verse)
    size = size * 2 if size == 4 and n_bars >= 16 and rng.random() < 0.6 else size
    form = rng.choice(["AABA", "ABAB", "AB", "AAB", "ABA", "A", "AABB", "ABB"])
    plan: list[tuple[str, list[str]]] = []
    left, i = n_bars, 0
    while left > 0:
        letter = form[i % len(form)]
        loop = verse if letter == "A" else change
        length = min(left, size if letter == "A" else max(4, size // rng.choice([1, 1, 2])))
        bars = [loop[j % len(loop)] for j in range(length)]
        if left <= 3 and plan:  # a short rest belongs to the section before it
            plan[-1][1].extend(bars)
        else:
            plan.append((letter, bars))
        left -= length
        i += 1
    last = plan[-1][1]
    if len(last) >= 4 and rng.random() < 0.5:
        last[-2:] = rng.choice(_ENDINGS_MINOR if minor else _ENDINGS).split("|")
    return plan


def _vary(rng: Random, bars: list[str]) -> list[str]:
    """Small seeded changes, so that two charts from one loop still differ."""
    bars = list(bars)
    for i, bar in enumerate(bars):
        draw = rng.random()
        if " " not in bar and draw < 0.05:
            bars[i] = bar + " " + rng.choice(["77", "5", "7sus4", "10"])
        elif draw < 0.09 and bar in _DEGREES:
            bars[i] = bar + rng.choice(["add9", "6", "sus4", "M7"])
        elif draw < 0.13 and bar.endswith("m"):
            bars[i] = bar + rng.choice(["7", "7", "9"])
    if len(bars) == 4 and rng.random() < 0.15:
        shift = rng.randrange(1, 4)
        bars = bars[shift:] + bars[:shift]
    return bars


def _spell(bar: str, tonic: int, names: list[str]) -> tuple[str, ...]:
    chords = []
    for token in bar.split():
        if token[:2] in ("10", "11"):
            degree, quality = int(token[:2]), token[2:]
        else:
            degree, quality = int(token[0]), token[1:]
        chords.append(names[(tonic + degree) % 12] + quality)
    return tuple(dict.fromkeys(chords))
