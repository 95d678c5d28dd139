"""A bass for grooves that are drums alone: it plays the song's chords on the kick drum's hits."""

from __future__ import annotations

import re
from random import Random

from data_samples.make.charts import Chart
from data_samples.make.grooves import Groove
from data_samples.make.midi import TICKS_PER_QUARTER, Midi, Note, Track

_KICKS = (35, 36)
_SIXTEENTH, _TRIPLET = TICKS_PER_QUARTER // 4, TICKS_PER_QUARTER // 3
_LOWEST = 28  # E1, a bass guitar's open string
_PITCH = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def root_of(chord: str) -> int:
    """Pitch class of a chord's root: "F#m7" is 6."""
    match = re.match(r"([A-G])([#b]?)", chord)
    if match is None:
        raise ValueError(f"root_of: expected a chord such as 'F#m7', got {chord!r}.")
    return (_PITCH[match[1]] + {"#": 1, "b": -1, "": 0}[match[2]]) % 12


def straighten(midi: Midi) -> None:
    """Move drum hits to the nearest sixteenth or triplet, in place.

    The drum-only style files write 1.2 and 1.8 where they mean 1.25 and 1.75.
    """
    for track in midi.tracks:
        for i, note in enumerate(track.notes):
            near = min(
                (round(note.start_ticks / grid) * grid for grid in (_SIXTEENTH, _TRIPLET)),
                key=lambda ticks: abs(ticks - note.start_ticks),
            )
            track.notes[i] = Note(near, near + 1, note.pitch, note.velocity, note.program)


def bass_on_kick(seed: str, groove: Groove, chart: Chart, midi: Midi) -> Track:
    """The bass line.

    Args:
        seed: decides between roots, fifths, octaves and note lengths.
        groove: for the length of its bars.
        chart: its chords, two in a bar change in the middle.
        midi: the song's drums, already straightened.
    Returns:
        A track named "Bass", at least one note in each bar.
    """
    rng = Random(seed + "/bass")
    bar_ticks = groove.beats_per_bar * groove.beat_ticks
    hits = sorted(
        {note.start_ticks for track in midi.tracks for note in track.notes if note.pitch in _KICKS}
    )
    length = rng.choice([0.45, 0.7, 0.95, 0.95])  # of the time to the next note
    fifths, octaves, second_beat = rng.uniform(0, 0.4), rng.uniform(0, 0.2), rng.random() < 0.5
    bars = [bar for section in chart.sections for bar in section.bars]
    starts: list[tuple[int, str]] = []
    for i, bar in enumerate(bars):
        own = [hit for hit in hits if i * bar_ticks <= hit < (i + 1) * bar_ticks]
        own = [hit for j, hit in enumerate(own) if not j or hit - own[j - 1] >= 2 * _SIXTEENTH]
        middle = i * bar_ticks + -(-groove.beats_per_bar // 2) * groove.beat_ticks
        if not own or own[0] > i * bar_ticks + groove.beat_ticks:
            own.insert(0, i * bar_ticks)
        if second_beat and not any(hit >= middle for hit in own):
            own.append(middle)
        starts += [(hit, bar.chords[-1 if hit >= middle else 0]) for hit in own]
    end = len(bars) * bar_ticks
    notes = []
    for i, (start, chord) in enumerate(starts):
        following = starts[i + 1][0] if i + 1 < len(starts) else end
        pitch = _LOWEST + (root_of(chord) - _LOWEST) % 12
        first_of_chord = i == 0 or starts[i - 1][1] != chord or start % bar_ticks == 0
        has_fifth = "dim" not in chord and "b5" not in chord
        if not first_of_chord and rng.random() < fifths and has_fifth:
            pitch += 7 if pitch + 7 < 45 else -5 if pitch >= _LOWEST + 5 else 0
        elif not first_of_chord and rng.random() < octaves:
            pitch += 12
        stop = start + max(_SIXTEENTH // 2, int((following - start) * length))
        notes.append(Note(start, min(stop, start + bar_ticks), pitch, rng.randint(84, 104), 33))
    return Track("Bass", 15, notes)
