"""One song from one id: groove, chart, tempo, MIDI by MMA, players' looseness, levels, labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
from scipy.signal import lfilter, oaconvolve

from data_samples.make.bassline import bass_on_kick, straighten
from data_samples.make.charts import Chart, make_chart
from data_samples.make.families import SWUNG, TEMPO_BPM
from data_samples.make.grooves import Groove, load_grooves
from data_samples.make.instruments import (
    STEMS,
    choose_kit,
    choose_program,
    instrument_name,
    stem_of_track,
)
from data_samples.make.midi import TICKS_PER_QUARTER, Midi, Track
from data_samples.make.mma import MmaError, run_mma
from data_samples.make.synth import CHANNELS_PER_STEM, SAMPLE_RATE, Event, Synth, Voice

PEAK = 0.9  # of the mix and of every stem
SILENT_RMS = 1e-4
_LEVEL_DB = {"drums": (-20, 2.5), "bass": (-21, 2.5), "keys": (-23, 3), "guitar": (-23, 3),
             "other": (-25, 3)}  # fmt: skip


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


@dataclass
class Rendered:
    """A song as arrays and labels."""

    stems: np.ndarray  # float32 [5, L] in the order of STEMS
    labels: dict = field(default_factory=dict)  # song.json without file names


class UnusableSong(ValueError):
    """A song came out without drums or bass, or MMA refused it; take the next attempt."""


def split_of_index(index: int) -> str:
    """Splits interleaved over the index: 90 % train, 4 % valid, 6 % test."""
    place = index % 50
    return "valid" if place in (12, 37) else "test" if place in (4, 20, 45) else "train"


def make_plan(
    index: int,
    seed: int = 0,
    split: str | None = None,
    length_s: tuple[float, float] = (24.0, 48.0),
    metre: str | None = None,
    attempt: int = 0,
) -> Plan:
    """Decide song `index`; equal arguments give the equal plan.

    Args:
        index: number of the song.
        seed: of the whole corpus.
        split: None takes `split_of_index`.
        length_s: shortest and longest song in seconds.
        metre: only grooves of this metre, such as "3/4".
        attempt: counts up when a song was unusable.
    """
    split = split or split_of_index(index)
    name = f"{seed}/{split}/{index}/{attempt}"
    rng = Random(name)
    groove = _choose_groove(rng, split, metre)
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


def _choose_groove(rng: Random, split: str, metre: str | None) -> Groove:
    files: dict[str, list[Groove]] = {}
    for groove in load_grooves():
        if groove.split == split and metre in (None, groove.metre):
            files.setdefault(groove.style_file, []).append(groove)
    if not files:
        raise ValueError(f"No groove of split {split!r} in {metre!r}; look into grooves.json.")
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


def _middle_of_bar(groove: Groove) -> int:
    """MMA's own beat (counted from 0) where a second chord goes; 0 = there is no room for one."""
    return {4: 2, 3: 2, 5: 3, 6: 3, 2: 1}.get(groove.bar_beats, 0)


def _bar_text(chords: tuple[str, ...], groove: Groove) -> str:
    places = ["/"] * groove.bar_beats
    places[0] = chords[0].replace("7sus4", "7sus")
    if len(chords) > 1 and _has_second_chord(groove):
        places[_middle_of_bar(groove)] = chords[1].replace("7sus4", "7sus")
    return " ".join(places)


def _has_second_chord(groove: Groove) -> bool:
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


def render_song(plan: Plan, synth: Synth) -> Rendered:
    """Make the song's stems and labels.

    Raises:
        UnusableSong: MMA refused the chart, or drums or bass are silent.
    """
    midi = _play_mma(plan)
    clock = Clock(plan)
    end_s = float(clock.beat_times_s[clock.n_beats])
    n_samples = int(round((end_s + plan.tail_s) * SAMPLE_RATE))
    voices, events, programs = _arrange(plan, midi, clock, end_s)
    dry = synth.render(voices, events, n_samples)
    stems = _mix(plan, dry)
    rms = np.sqrt(np.mean(np.square(stems, dtype=np.float64), axis=1))
    silent = {stem: bool(rms[i] < SILENT_RMS) for i, stem in enumerate(STEMS)}
    if silent["drums"] or silent["bass"]:
        raise UnusableSong(f"{plan.id}: drums or bass are silent in {plan.groove.name}.")
    stems[[i for i, stem in enumerate(STEMS) if silent[stem]]] = 0.0
    labels = _labels(plan, clock, n_samples / SAMPLE_RATE, silent, programs)
    return Rendered(stems, labels)


def _play_mma(plan: Plan) -> Midi:
    for extras in (True, False):  # a few grooves leave no MIDI channel for the extra tracks
        try:
            midi = run_mma(mma_text(plan, extras))
            break
        except MmaError as error:
            last = error
    else:
        raise UnusableSong(f"{plan.id}: MMA refused {plan.groove.name}: {last}") from last
    if plan.groove.drums_only:
        drums = [track for track in midi.tracks if track.channel == 9]
        only_drums = Midi(drums, midi.time_signature, midi.end_ticks)
        straighten(only_drums)
        midi.tracks.append(bass_on_kick(plan.seed, plan.groove, plan.chart, only_drums))
    return midi


def _arrange(
    plan: Plan, midi: Midi, clock: Clock, end_s: float
) -> tuple[list[list[Voice]], list[list[Event]], dict[str, list[int]]]:
    """Tracks to stems: voices, humanised events, and the programs that really sound."""
    rng = Random(plan.seed + "/players")
    draw = np.random.default_rng(list(plan.seed.encode()))
    family = plan.groove.family
    looseness = rng.uniform(0.2, 1.3)
    assigned = _assign_tracks(rng, midi.tracks)
    lag_s = {stem: rng.gauss(0.0, 0.003) for stem in STEMS}
    kit = choose_kit(rng, family)
    voices: list[list[Voice]] = [[] for _ in STEMS]
    events: list[list[Event]] = [[] for _ in STEMS]
    programs: dict[str, list[int]] = {stem: [] for stem in STEMS}
    for track, stem in assigned:
        place = STEMS.index(stem)
        spread_s = (0.003 if stem == "drums" else 0.006) * looseness
        own: dict[int, int] = {}  # program of the style file -> channel of the stem
        shift: dict[int, float] = {}
        volume = track.volumes[0][1] if track.volumes else 100
        for note in track.notes:
            if note.program not in own:
                if len(voices[place]) >= CHANNELS_PER_STEM:
                    own[note.program] = 0
                else:
                    program = (
                        kit if stem == "drums" else choose_program(rng, stem, note.program, family)
                    )
                    own[note.program] = len(voices[place])
                    voices[place].append(Voice(program, stem == "drums", max(40, volume)))
            if note.start_ticks not in shift:  # a chord moves as one hand
                shift[note.start_ticks] = float(np.clip(draw.normal(0, spread_s), -0.02, 0.02))
            move_s = shift[note.start_ticks] + (lag_s[stem] if stem != "drums" else 0.0)
            start_s = float(clock.seconds(note.start_ticks)) + move_s
            stop_s = float(clock.seconds(note.end_ticks)) + move_s
            if start_s >= end_s - 0.01:
                continue
            if stem == "drums":
                stop_s = start_s + 0.3  # MMA writes drum notes one tick long
            velocity = int(np.clip(round(note.velocity + draw.normal(0, 5)), 12, 127))
            events[place].append(
                Event(max(0.0, start_s), stop_s, own[note.program], note.pitch, velocity)
            )
            programs[stem].append(voices[place][own[note.program]].program)
    return voices, events, programs


def _assign_tracks(rng: Random, tracks: list[Track]) -> list[tuple[Track, str]]:
    """Stem of every track; the extra keys and guitar play only where there is none (mostly)."""
    own = [
        (track, stem_of_track(track)) for track in tracks if "-X" not in track.name.upper()
    ]
    extra = {stem_of_track(track): track for track in tracks if "-X" in track.name.upper()}
    for rare, rich in (("guitar", "keys"), ("keys", "guitar")):
        places = [i for i, (_, stem) in enumerate(own) if stem == rich]
        if len(places) > 1 and all(stem != rare for _, stem in own) and rng.random() < 0.4:
            i = rng.choice(places)
            own[i] = (own[i][0], rare)
    present = {stem for _, stem in own}
    chance = 0.6 if present & {"keys", "guitar"} else 0.85
    for stem in ("keys", "guitar"):
        wanted = rng.random() < chance
        if stem in extra and stem not in present and wanted:
            own.append((extra[stem], stem))
    return own


def _mix(plan: Plan, dry: np.ndarray) -> np.ndarray:
    """Balance the stems, add a room now and then, fade the end, keep the mix below PEAK."""
    rng = Random(plan.seed + "/mix")
    stems = dry.astype(np.float32)
    room = _room(rng) if rng.random() < 0.35 else None
    for i, stem in enumerate(STEMS):
        level = _active_rms(stems[i])
        centre, spread = _LEVEL_DB[stem]
        target = 10 ** ((centre + rng.uniform(-spread, spread)) / 20)
        wet = 10 ** (rng.uniform(-26, -14) / 20)
        if level < 1e-5:
            stems[i] = 0.0
            continue
        stems[i] *= target / level
        if room is not None and stem != "bass":
            stems[i] += wet * oaconvolve(stems[i], room)[: stems.shape[1]].astype(np.float32)
    fade = min(stems.shape[1], int(0.06 * SAMPLE_RATE))
    stems[:, -fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    mix = stems.sum(0)
    wanted = 10 ** (rng.uniform(-21, -15) / 20) / max(_active_rms(mix), 1e-6)
    peak = max(float(np.abs(mix).max()), float(np.abs(stems).max()), 1e-6)
    return stems * min(wanted, PEAK * rng.uniform(0.85, 1.0) / peak)


def _active_rms(wav: np.ndarray, frame: int = 1600) -> float:
    """RMS over the 50-ms frames that are less than 30 dB below the loudest one."""
    power = np.square(wav[: len(wav) // frame * frame].reshape(-1, frame)).mean(1)
    loud = power[power > power.max() * 1e-3] if len(power) else power
    return float(np.sqrt(loud.mean())) if len(loud) else 0.0


def _room(rng: Random) -> np.ndarray:
    """Impulse response of a small room: decaying noise, darker with time; energy 1."""
    seconds = rng.uniform(0.25, 1.0)
    draw = np.random.default_rng(rng.randrange(2**31))
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = draw.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    noise[: int(0.004 * SAMPLE_RATE)] = 0.0
    pole = rng.uniform(0.5, 0.85)
    dark = lfilter([1 - pole], [1, -pole], noise)
    return (dark / np.sqrt(np.square(dark).sum())).astype(np.float32)


def _labels(
    plan: Plan,
    clock: Clock,
    duration_s: float,
    silent: dict[str, bool],
    programs: dict[str, list[int]],
) -> dict:
    groove = plan.groove
    beats = clock.beat_times_s[: clock.n_beats]
    chords: list[list] = []
    sections: list[list] = []
    bar = 0
    for section in plan.chart.sections:
        wanted = groove if section.letter == "A" else plan.change_groove
        start = clock.seconds(bar * groove.beats_per_bar * groove.beat_ticks)
        sections.append([round(float(start), 4), section.letter, wanted.short_name])
        for entry in section.bars:
            places = [0, _middle_of_bar(groove)][: 1 + _has_second_chord(groove)]
            bar_ticks = bar * groove.beats_per_bar * groove.beat_ticks
            for chord, place in zip(entry.chords, places, strict=False):
                at = float(clock.seconds(bar_ticks + place * TICKS_PER_QUARTER))
                if not chords or chords[-1][1] != chord:
                    chords.append([round(at, 4), chord])
            bar += 1
    pace = "slow" if plan.bpm < 90 else "medium" if plan.bpm < 130 else "fast"
    stems, description, long = {}, {}, {}
    for stem in STEMS:
        used = programs[stem]
        names = [instrument_name(stem, program) for program in used]
        ranked = sorted(set(names), key=lambda name: (-names.count(name), name))
        stems[stem] = {"silent": silent[stem], "programs": sorted(set(used))}
        description[stem] = f"{stem}, {groove.family}"
        long[stem] = ", ".join([stem, *ranked[:2], groove.family, f"{pace} tempo"])
    return {
        "id": plan.id,
        "split": plan.split,
        "seed": plan.seed,
        "sample_rate": SAMPLE_RATE,
        "bpm": plan.bpm,
        "steady_tempo": plan.drift == 0.0,
        "metre": groove.metre,
        "beats_per_bar": groove.beats_per_bar,
        "duration_s": duration_s,
        "beats": [round(float(beat), 5) for beat in beats],
        "downbeats": [round(float(beat), 5) for beat in beats[:: groove.beats_per_bar]],
        "chords": chords,
        "sections": sections,
        "chart": plan.chart.romans,
        "key": plan.chart.key,
        "groove": groove.name,
        "family": groove.family,
        "stems": stems,
        "description": description,
        "description_long": long,
    }
