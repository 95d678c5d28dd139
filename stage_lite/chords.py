"""Chord names -> notes -> a guide track: the harmony of a song as plain block chords.

    chord_pitches("Am7/E")      (4, 9, 0, 4, 7)     pitch classes, C = 0, the bass first
    chord_track(song.chords, start_s=window.start_s, duration_s=window.duration_s)

Names are those of lead sheets: root, kind, and a bass note behind a slash.

Notebook: 08_own_conditioning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .audio import limit
from .errors import StageLiteError

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
KINDS = {  # semitones above the root
    "": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "+": (0, 4, 8),
    "5": (0, 7), "sus2": (0, 2, 7), "sus4": (0, 5, 7), "sus": (0, 5, 7),
    "6": (0, 4, 7, 9), "m6": (0, 3, 7, 9), "add9": (0, 4, 7, 2), "6/9": (0, 4, 7, 9, 2),
    "7": (0, 4, 7, 10), "M7": (0, 4, 7, 11), "m7": (0, 3, 7, 10), "mM7": (0, 3, 7, 11),
    "dim7": (0, 3, 6, 9), "m7b5": (0, 3, 6, 10), "7sus4": (0, 5, 7, 10),
    "7b9": (0, 4, 7, 10, 1), "7#9": (0, 4, 7, 10, 3), "9": (0, 4, 7, 10, 2),
    "M9": (0, 4, 7, 11, 2), "m9": (0, 3, 7, 10, 2), "13": (0, 4, 7, 10, 9),
}  # fmt: skip
OTHER_NAMES = {"maj": "", "min": "m", "-": "m", "maj7": "M7", "min7": "m7", "-7": "m7"}
NO_CHORD = ("", "N", "N.C.", "NC")

LOWEST = 60  # MIDI number of the lowest note: middle C, and the octave above it
ATTACK_S, RELEASE_S, FADE_S = 0.01, 0.03, 2.0
PARTIALS = (1.0, 0.5, 0.33)
LEVEL = 0.06  # of a note's fundamental


def chord_pitches(name: str) -> tuple[int, ...]:
    """Pitch classes of a chord, C = 0, the lowest note first; none for "N.C.".

    Raises:
        StageLiteError: a name that is not known, with the kinds that are.
    """
    if name in NO_CHORD:
        return ()
    found = re.fullmatch(r"([A-G][#b]*)(.*?)(?:/([A-G][#b]*))?", name)
    kind = OTHER_NAMES.get(found[2], found[2]) if found else None
    if found is None or kind not in KINDS:
        raise StageLiteError(
            f"chord {name!r}; expected a root such as C, F# or Eb and one of the kinds "
            f"{', '.join(kind for kind in KINDS if kind)}, with /bass behind it or not"
        )
    notes = tuple((_pitch(found[1]) + step) % 12 for step in KINDS[kind])
    return notes if found[3] is None else (_pitch(found[3]), *notes)


def chord_track(
    chords: Sequence[tuple[float, str]],
    *,
    start_s: float = 0.0,
    duration_s: float,
    sample_rate: int = 32000,
) -> Float[Tensor, "1 L"]:
    """Each chord struck once, when it begins, and held until the next: harmony and no rhythm.

    Args:
        chords: (seconds, name), each valid until the next; `song.chords`.
        start_s: second at which the track begins. A chord that sounds there already is struck.
        duration_s: length of the track.
        sample_rate: Hz.

    Returns:
        Sums of sines, L = duration_s * sample_rate; silence where there is no chord.

    Raises:
        StageLiteError: a chord that is not known.
    """
    length = round(duration_s * sample_rate)
    track = torch.zeros(length)
    ends = [start for start, _ in chords[1:]] + [math.inf]
    for (start, name), end in zip(chords, ends, strict=False):  # no chord, no end
        first = max(0, round((start - start_s) * sample_rate))
        last = length if end == math.inf else min(length, round((end - start_s) * sample_rate))
        if last > first:
            track[first:last] = _strike(chord_pitches(name), last - first, sample_rate)
    return limit(track[None])


def _pitch(note: str) -> int:
    return (NATURALS[note[0]] + note.count("#") - note.count("b")) % 12


def _strike(pitches: Sequence[int], n_samples: int, sample_rate: int) -> Float[Tensor, " n"]:
    time = torch.arange(n_samples, dtype=torch.float64) / sample_rate
    sound = torch.zeros(n_samples, dtype=torch.float64)
    for pitch in dict.fromkeys(pitches):
        hertz = 440.0 * 2 ** ((LOWEST + pitch - 69) / 12)
        for partial, level in enumerate(PARTIALS, 1):
            sound += level * torch.sin(2 * torch.pi * partial * hertz * time)
    shape = (time / ATTACK_S).clamp(max=1.0) * torch.exp(-time / FADE_S)
    return (LEVEL * sound * shape * ((time[-1] - time) / RELEASE_S).clamp(max=1.0)).float()
