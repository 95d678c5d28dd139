"""What is decided about a song before a note sounds: groove, chart, tempo, MMA text, clock."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from data_samples.make.charts import Chart, make_chart
from data_samples.make.families import SWUNG, TEMPO_BPM
from data_samples.make.grooves import Groove, load_grooves
from data_samples.make.midi import TICKS_PER_QUARTER


@dataclass(frozen=True)
class Plan:
    """All that is decided about a song before any note is made."""

    id: str
    split: str
    seed: str
    groove: Groove
    change_groove: Groove  # plays the sections that are not A; often the same
    chart: Chart
    bpm: float
    drift: float  # largest relative deviation of the tempo, 0 = steady
    lead_in_s: float  # silence before the first beat
    tail_s: float  # what rings on after the last bar


def split_of_index(index: int) -> str:
    """Splits interleaved over the index: 90 % train, 4 % valid, 6 % test."""
    place = index % 50
    return "valid" if place in (12, 37) else "test" if place in (4, 20, 45) else "train"


def make_plan(
    index: int,
    seed: int = 0,
    split: str | None = None,
    length_s: tuple[float, float] = (24.0, 48.0),
    style_file: str | None = None,
    attempt: int = 0,
) -> Plan:
    """Decide song `index`; equal arguments give the equal plan.

    Args:
        index: number of the song.
        seed: of the whole corpus.
        split: None takes `split_of_index`.
        length_s: shortest and longest song in seconds.
        style_file: only grooves of this file of MMA's library, such as "stdlib/bossanova".
        attempt: counts up when a song was unusable.
    """
    split = split or split_of_index(index)
    name = f"{seed}/{split}/{index}/{attempt}"
    rng = Random(name)
    groove = _choose_groove(rng, split, style_file)
    bpm = _choose_bpm(rng, groove)
    siblings = [
        other
        for other in load_grooves()
        if other.style_file == groove.style_file and other.metre == groove.metre
    ]
    change = rng.choice(siblings) if rng.random() < 0.6 else groove
    bar_s = groove.beats_per_bar * 60.0 / bpm
    lead_in_s, tail_s = rng.uniform(0.05, 0.4), rng.uniform(0.0, 0.4)
    room = (length_s[0] - lead_in_s, length_s[1] - lead_in_s - tail_s)
    n_bars = max(2, int(rng.uniform(*room) / bar_s))
    if n_bars % 2 and (n_bars + 1) * bar_s <= room[1]:
        n_bars += 1
    if n_bars * bar_s < room[0]:
        n_bars += 1
    chart = make_chart(name, split, n_bars, groove.family)
    drift = rng.uniform(0.01, 0.05) if rng.random() < 0.2 else 0.0
    return Plan(
        f"{split}-{seed}-{index:05d}",
        split,
        name,
        groove,
        change,
        chart,
        bpm,
        drift,
        lead_in_s,
        tail_s,
    )


def _choose_groove(rng: Random, split: str, style_file: str | None) -> Groove:
    files: dict[str, list[Groove]] = {}
    for groove in load_grooves():
        if groove.split == split and style_file in (None, groove.style_file):
            files.setdefault(groove.style_file, []).append(groove)
    if not files:
        raise ValueError(f"No groove of split {split!r} in {style_file!r}; look into grooves.json.")
    # Files weigh by the root of what they hold; rare metres count double.
    names = sorted(files)
    weights = [len(files[name]) ** 0.5 * (1 + (files[name][0].metre != "4/4")) for name in names]
    return rng.choice(files[rng.choices(names, weights)[0]])


def _choose_bpm(rng: Random, groove: Groove) -> float:
    """Two thirds of the songs at a tempo that suits, the others anywhere in 60 to 190 bpm."""
    low, high = TEMPO_BPM[groove.family]
    if groove.metre in ("6/8", "12/8"):  # counted in dotted quarters
        low, high = (60, 110) if rng.random() < 0.8 else (60, 140)
    elif rng.random() > 0.66:
        low, high = 60, 190
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 2)


# Accompaniment for grooves that have no keys or no guitar; MMA plays it on the song's chords.
_COMPING = {
    4: ["1 1 70", "1 2 75; 3 2 70", "1 4 75; 2 4 62; 3 4 70; 4 4 62", "2 8 75; 4 8 75",
        "1 4. 78; 2.5 4 68; 4 8 64", "1 8 72; 2.5 8 66; 4 8 72", "1 4 72; 3 4 72"],
    3: ["1 2. 72", "2 4 68; 3 4 66", "1 2 74; 3 4 66", "1 4 75; 2 4 62; 3 4 62"],
    5: ["1 2. 72; 4 2 68", "1 4 75; 4 4 70", "1 2. 72"],
    6: ["1 2. 72; 4 2. 68", "1 4 74; 4 4 70", "1 2 74; 3 4 62; 4 2 70; 6 4 62"],
    2: ["1 4 72; 2 4 68", "1 2 72", "1.66 8 70; 2.66 8 70"],
}  # fmt: skip
_BROKEN = {4: "1 8 66 * 8", 3: "1 8 66 * 6", 5: "1 8 66 * 10", 6: "1 4 66 * 6", 2: "1 4 66 * 2"}


def mma_text(plan: Plan, extras: bool = True) -> str:
    """The song as MMA source; chords sit where the bar and its middle are."""
    rng = Random(plan.seed + "/arrangement")
    groove = plan.groove
    beat_quarters = groove.beat_ticks / TICKS_PER_QUARTER
    lines = [
        f"RndSeed {rng.randrange(1, 2**30)}",
        f"Tempo {max(20, min(400, round(plan.bpm * beat_quarters)))}",
    ]
    extra_lines = _extra_tracks(rng, groove) if extras else []
    fills = [fill for fill in groove.fills if rng.random() < 0.7] if rng.random() < 0.7 else []
    number, playing = 1, ""
    for section in plan.chart.sections:
        wanted = (groove if section.letter == "A" else plan.change_groove).name
        for i, bar in enumerate(section.bars):
            is_last = i == len(section.bars) - 1 and len(section.bars) >= 4
            now = rng.choice(fills) if fills and is_last and rng.random() < 0.8 else wanted
            if now != playing or i == 0:
                lines += [f"Groove {now}", *extra_lines]
                playing = now
            lines.append(f"{number} {_bar_text(bar.chords, groove)}")
            number += 1
    return "\n".join(lines) + "\n"


def middle_of_bar(groove: Groove) -> int:
    """MMA's own beat (counted from 0) where a second chord goes; 0 = there is no room for one."""
    return {4: 2, 3: 2, 5: 3, 6: 3, 2: 1}.get(groove.bar_beats, 0)


def _bar_text(chords: tuple[str, ...], groove: Groove) -> str:
    places = ["/"] * groove.bar_beats
    places[0] = chords[0].replace("7sus4", "7sus")
    if len(chords) > 1 and has_second_chord(groove):
        places[middle_of_bar(groove)] = chords[1].replace("7sus4", "7sus")
    return " ".join(places)


def has_second_chord(groove: Groove) -> bool:
    return not (groove.bar_beats == 3 and groove.metre == "6/8")


def _extra_tracks(rng: Random, groove: Groove) -> list[str]:
    lines = []
    for stem, octave in (("keys", 5), ("guitar", 4)):
        broken = rng.random() < 0.25 and groove.family not in SWUNG
        patterns = _COMPING[groove.bar_beats]
        sequence = [_BROKEN[groove.bar_beats]] if broken else rng.choices(patterns, k=2)
        body = " ".join("{" + pattern + "}" for pattern in sequence)
        kind = "Arpeggio" if broken else "Chord"
        lines += [
            f"Begin {kind}-X{stem}",
            f" Voice {'Piano1' if stem == 'keys' else 'CleanGuitar'}",
            f" Octave {octave}",
            f" Sequence {body}",
            *([] if broken else [" Voicing Mode=Optimal"]),
            *([f" Strum {rng.choice([2, 4, 6])}"] if stem == "guitar" and not broken else []),
            " Volume mf",
            " RVolume 8",
            "End",
        ]
    return lines


class Clock:
    """Ticks of the MIDI file to seconds, with the song's own slow drift of tempo."""

    def __init__(self, plan: Plan) -> None:
        rng = Random(plan.seed + "/clock")
        groove = plan.groove
        self.n_beats = plan.chart.n_bars * groove.beats_per_bar
        beats = np.arange(self.n_beats + 2 * groove.beats_per_bar + 1)
        period, phase = rng.uniform(16, 64), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * beats[:-1] / period + phase)
        step_s = 60.0 / (plan.bpm * (1 + plan.drift * wave))
        self.beat_times_s = plan.lead_in_s + np.concatenate([[0.0], np.cumsum(step_s)])
        self._ticks = beats * groove.beat_ticks

    def seconds(self, ticks: np.ndarray | float) -> np.ndarray:
        return np.interp(ticks, self._ticks, self.beat_times_s)
