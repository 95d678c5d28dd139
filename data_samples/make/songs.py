"""One song from one plan: MIDI by MMA, players' looseness, sound by FluidSynth, labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np

from data_samples.make.bassline import bass_on_kick, straighten
from data_samples.make.instruments import (
    STEMS,
    choose_kit,
    choose_program,
    instrument_name,
    stem_of_track,
)
from data_samples.make.midi import TICKS_PER_QUARTER, Midi, Track
from data_samples.make.mixing import mix_stems
from data_samples.make.mma import MmaError, run_mma
from data_samples.make.plan import Clock, Plan, has_second_chord, middle_of_bar, mma_text
from data_samples.make.synth import CHANNELS_PER_STEM, SAMPLE_RATE, Event, Synth, Voice

SILENT_RMS = 1e-4


@dataclass
class Rendered:
    """A song as arrays and labels."""

    stems: np.ndarray  # float32 [5, L] in the order of STEMS
    labels: dict = field(default_factory=dict)  # song.json without file names


class UnusableSong(ValueError):
    """A song came out without drums or bass, or MMA refused it; take the next attempt."""


def render_song(plan: Plan, synth: Synth) -> Rendered:
    """Make the song's stems and labels.

    Raises:
        UnusableSong: MMA refused the chart, or drums or bass are silent.
    """
    midi = _play_mma(plan)
    clock = Clock(plan)
    end_s = float(clock.beat_times_s[clock.n_beats])
    n_samples = round((end_s + plan.tail_s) * SAMPLE_RATE)
    voices, events, programs = _arrange(plan, midi, clock, end_s)
    dry = synth.render(voices, events, n_samples)
    stems = mix_stems(plan.seed, dry)
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
    own = [(track, stem_of_track(track)) for track in tracks if "-X" not in track.name.upper()]
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
            places = [0, middle_of_bar(groove)][: 1 + has_second_chord(groove)]
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
