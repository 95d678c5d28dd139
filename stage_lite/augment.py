"""A song played faster or slower, higher or lower: STAGE's augmentation as a view of a song.

The view has the song's own methods, so every condition works on it unchanged: stems are stretched
and shifted when they are read, beats and chords are rescaled and transposed, and a click is made
of the rescaled beats instead of being stretched itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import mix
from .errors import StageLiteError

if TYPE_CHECKING:
    from .song import Song

RATES = (0.8, 1.2)  # 1.2 plays faster
SEMITONES = (-4, 4)
PROBABILITY = 0.5  # of each of the two
EDGE_S = 0.1  # read on both sides, where the phase vocoder is not yet settled
FRAME_S = 0.032  # of the phase vocoder, rounded to a power of two in samples
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
FLATS = {"C#": 1, "D#": 3, "E#": 5, "F#": 6, "G#": 8, "A#": 10, "B#": 0, "Cb": 11, "Fb": 4}


class AugmentedSong:
    """A song at another speed and pitch.

    Args:
        song: any Song.
        rate: above 1 is faster; beats move to time / rate.
        semitones: how much higher; also drums, as in STAGE.
    """

    def __init__(self, song: Song, rate: float = 1.0, semitones: int = 0):
        if not 0.25 <= rate <= 4.0 or not -24 <= semitones <= 24:
            raise StageLiteError(
                f"AugmentedSong got rate {rate} and {semitones} semitones; expected a rate from "
                "0.25 to 4 and -24 to 24 semitones"
            )
        self.song, self.rate, self.semitones = song, float(rate), int(semitones)

    def __getattr__(self, name: str):
        if name.startswith("__"):  # copy and pickle ask before `song` is set
            raise AttributeError(name)
        return getattr(self.song, name)

    @property
    def duration_s(self) -> float:
        return self.song.duration_s / self.rate

    @property
    def bpm(self) -> float | None:
        return None if self.song.bpm is None else self.song.bpm * self.rate

    @property
    def beats(self) -> Float[ndarray, "n"]:
        return self.song.beats / self.rate

    @property
    def downbeats(self) -> Float[ndarray, "m"]:
        return self.song.downbeats / self.rate

    @property
    def chords(self) -> list[tuple[float, str]]:
        return [(t / self.rate, transpose(name, self.semitones)) for t, name in self.song.chords]

    @property
    def key(self) -> str | None:
        return None if self.song.key is None else transpose(self.song.key, self.semitones)

    def stem(
        self, name: str, start_s: float = 0.0, duration_s: float | None = None
    ) -> Float[Tensor, "1 L"]:
        """As Song.stem, in the time of the augmented song."""
        if duration_s is None:
            duration_s = self.duration_s - start_s
        if self.rate == 1.0 and self.semitones == 0:
            return self.song.stem(name, start_s, duration_s)
        before = min(EDGE_S, start_s)
        wanted_s = before + duration_s + EDGE_S
        source = self.song.stem(name, (start_s - before) * self.rate, wanted_s * self.rate)
        changed = stretch(source, self.song.sample_rate, self.rate, self.semitones)
        first = round(before * self.song.sample_rate)
        length = round(duration_s * self.song.sample_rate)
        part = changed[:, first : first + length]
        return torch.nn.functional.pad(part, (0, length - part.shape[-1]))

    def mix(
        self,
        names: Sequence[str] | None = None,
        start_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Float[Tensor, "1 L"]:
        """As Song.mix, in the time of the augmented song."""
        names = self.stem_names if names is None else names
        return mix([self.stem(name, start_s, duration_s) for name in names])


def draw_augmentation(rng: np.random.Generator) -> tuple[float, int]:
    """A rate and semitones as STAGE draws them: each with p = 0.5, independently."""
    stretched, rate = rng.random(), rng.uniform(*RATES)
    shifted, semitones = rng.random(), int(rng.integers(SEMITONES[0], SEMITONES[1] + 1))
    return (
        rate if stretched < PROBABILITY else 1.0,
        semitones if shifted < PROBABILITY else 0,
    )


def stretch(
    wav: Float[Tensor, "1 L"], sample_rate: int, rate: float = 1.0, semitones: float = 0.0
) -> Float[Tensor, "1 L2"]:
    """Change speed and pitch in one pass; L2 = round(L / rate).

    With factor = 2 ** (semitones / 12), librosa's phase vocoder changes the speed by rate / factor,
    and resampling by factor then changes speed and pitch together. Its frames are about 32 ms: long
    ones smear the attacks of drums over the beat.
    """
    import librosa

    factor = 2 ** (semitones / 12)
    length = round(wav.shape[-1] / rate)
    samples = wav[0].numpy()
    if not np.any(samples) or length == 0:
        return torch.zeros(1, length)
    if rate != factor:
        n_fft = 2 ** round(np.log2(FRAME_S * sample_rate))
        samples = librosa.effects.time_stretch(samples, rate=rate / factor, n_fft=n_fft)
    if factor != 1.0:
        samples = soxr.resample(samples, factor, 1.0, quality="HQ")
    changed = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None, :length]
    changed = torch.nn.functional.pad(changed, (0, length - changed.shape[-1]))
    return changed.clamp(-1.0, 1.0)


def transpose(chord: str, semitones: int) -> str:
    """A chord name so many semitones higher: ("Am7/E", 3) -> "Cm7/G"; unknown names stay."""

    def move(found: re.Match) -> str:
        note = found.group(1)
        number = FLATS[note] if note in FLATS else NOTES.index(note)
        return NOTES[(number + semitones) % 12]

    if semitones % 12 == 0:
        return chord
    root, slash, bass = chord.partition("/")
    note = r"^([A-G][#b]?)"
    return re.sub(note, move, root) + slash + re.sub(note, move, bass)
