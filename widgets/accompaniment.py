"""A song in the making: what is there, the takes, those that are kept, and what comes next hears.

    context ─┬─> drums, take 1        thrown away
             ├─> drums, take 2        kept ─┐
             └──────────────────────────────┴─> bass, take 3        kept ─ ...

All audio is mono, at one rate, and begins together. A click gives way to the first stem that is
kept: the model learnt to follow a click or music, never both.

Notebook: 00_quickstart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from stage_lite.audio import is_silent, mix, prepare
from stage_lite.errors import StageLiteError
from stage_lite.metronome import beat_grid, check_times, click_track, every_nth, track_beats

from .stem_input import is_number

MAX_KEPT = 8  # stems of a song
MAX_TAKES = 24  # that are remembered; older ones that are not kept are dropped
BEATS_PER_BAR = (1, 16)


@dataclass(frozen=True)
class Context:
    """What the first stem plays along with."""

    name: str
    wav: Float[Tensor, "1 L"]
    beats: Float[ndarray, "n"] | None = None  # seconds, where they are known
    downbeats: Float[ndarray, "m"] | None = None
    is_click: bool = False

    @property
    def silent(self) -> bool:
        """Nothing to be heard in it?"""
        return is_silent(self.wav)


@dataclass(frozen=True)
class Take:
    """One generated stem and what it was asked for."""

    id: int  # from 1
    stem: str
    words: str  # style; what the model was told is `description`
    cfg_coef: float
    seed: int
    wav: Float[Tensor, "1 L"]
    heard: tuple[str, ...]  # names of what it played along with
    seconds: float  # that it took

    @property
    def description(self) -> str:
        """What the model was told: the stem, then the style."""
        return description_of(self.stem, self.words)


@dataclass(frozen=True)
class Tempo:
    """Beats of the song and where they are from: "given", "click", "tracked" or "none"."""

    beats: Float[ndarray, "n"]
    downbeats: Float[ndarray, "m"]
    source: str


@dataclass
class Accompaniment:
    """The song: change it by its methods, read it by its fields."""

    sample_rate: int  # Hz, of all audio
    duration_s: float  # of every stem
    context: Context | None = None
    takes: list[Take] = field(default_factory=list)
    kept_ids: list[int] = field(default_factory=list)  # in the order of keeping
    n_contexts: int = 0  # that it has had, so that an old one is not taken for a new one
    _next_id: int = 1

    def snapshot(self) -> Accompaniment:
        """The song as it is now; later changes do not reach it."""
        return replace(self, takes=list(self.takes), kept_ids=list(self.kept_ids))

    # --- context -------------------------------------------------------------------------------

    def set_context(
        self,
        wav: Any,
        sample_rate: int,
        name: str = "context",
        *,
        start_s: float = 0.0,
        beats: Sequence[float] | None = None,
        downbeats: Sequence[float] | None = None,
    ) -> int:
        """Take `duration_s` of a wav from `start_s` on. Takes for another context are dropped.

        Args:
            wav: [L] or [C, L], any rate and channels; checked by `audio.prepare`.
            sample_rate: Hz.
            name: shown as it is.
            start_s: where the song begins in `wav`.
            beats, downbeats: in seconds of `wav`, where they are known.

        Returns:
            How many takes were dropped.

        Raises:
            StageLiteError: audio that cannot be used, a start behind its end, stems that are kept.
        """
        ready = prepare(wav, sample_rate, self.sample_rate, name=name)
        length = round(self.duration_s * self.sample_rate)
        start = round(start_s * self.sample_rate)
        if not 0 <= start < ready.shape[-1]:
            raise StageLiteError(
                f"{name} is {ready.shape[-1] / self.sample_rate:.2f} s long; asked for it from "
                f"{start_s} s on; expected a start within it"
            )
        ready = ready[:, start : start + length]

        def inside(times: Sequence[float] | None, what: str) -> ndarray | None:
            if times is None:
                return None
            shifted = check_times(times, what) - start_s
            return shifted[(shifted >= 0) & (shifted < self.duration_s)]

        return self._replace(
            Context(name, ready, inside(beats, "beats"), inside(downbeats, "downbeats"))
        )

    def set_click(self, bpm: float, beats_per_bar: int = 4) -> int:
        """Begin with a metronome. Returns how many takes were dropped."""
        low, high = BEATS_PER_BAR
        if not isinstance(beats_per_bar, int) or not low <= beats_per_bar <= high:
            raise StageLiteError(
                f"beats_per_bar is {beats_per_bar!r}; expected a whole number from {low} to {high}"
            )
        if not is_number(bpm):
            raise StageLiteError(f"the tempo is {bpm!r}; expected a number of beats a minute")
        beats, downbeats = beat_grid(bpm, beats_per_bar, duration_s=self.duration_s)
        click = click_track(
            beats, downbeats, duration_s=self.duration_s, sample_rate=self.sample_rate
        )
        name = f"click, {bpm:g} bpm, {beats_per_bar} beats a bar"
        return self._replace(Context(name, click, beats, downbeats, is_click=True))

    def _replace(self, context: Context) -> int:
        if self.kept_ids:
            raise StageLiteError(
                f"kept stems: {len(self.kept_ids)}, and they belong to "
                f"{self.context.name if self.context else 'no context'}; expected none before the "
                "context changes; start over, or put them back"
            )
        dropped, self.takes, self.context = len(self.takes), [], context
        self.n_contexts += 1
        return dropped

    def start_over(self) -> None:
        """No context, no takes."""
        self.context, self.takes, self.kept_ids = None, [], []

    # --- takes ---------------------------------------------------------------------------------

    @property
    def kept(self) -> list[Take]:
        """The stems of the song so far, in the order of keeping."""
        return [self.take(id_) for id_ in self.kept_ids]

    def take(self, id_: int) -> Take:
        """By its number."""
        for take in self.takes:
            if take.id == id_:
                return take
        known = [take.id for take in self.takes]
        raise StageLiteError(f"there is no take {id_!r}; expected one of {known}")

    def add(self, **fields: Any) -> Take:
        """Remember a new take: stem, words, cfg_coef, seed, wav, heard, seconds."""
        take = Take(id=self._next_id, **fields)
        self._next_id += 1
        self.takes.append(take)
        for old in list(self.takes):
            if len(self.takes) > MAX_TAKES and old.id not in (*self.kept_ids, take.id):
                self.takes.remove(old)
        return take

    def keep(self, id_: int) -> None:
        """Make a take part of the song."""
        self.take(id_)
        if len(self.kept_ids) >= MAX_KEPT and id_ not in self.kept_ids:
            raise StageLiteError(
                f"{MAX_KEPT} stems are kept; expected at most so many; put one of them back first"
            )
        if id_ not in self.kept_ids:
            self.kept_ids.append(id_)

    def put_back(self, id_: int) -> None:
        """Take it out of the song; it stays among the takes."""
        self.take(id_)
        self.kept_ids = [kept for kept in self.kept_ids if kept != id_]

    def delete(self, id_: int) -> None:
        """Forget a take."""
        self.put_back(id_)
        self.takes = [take for take in self.takes if take.id != id_]

    # --- what is heard -------------------------------------------------------------------------

    def parts(self) -> dict[str, Float[Tensor, "1 L"]]:
        """Name -> wav of what the song is made of so far, without a click that has given way."""
        parts: dict[str, Tensor] = {}
        if self.context is not None and not (self.context.is_click and self.kept_ids):
            parts[self.context.name] = self.context.wav
        for take in self.kept:
            parts[_free(take.stem, parts)] = take.wav
        return parts

    def mix(self) -> Float[Tensor, "1 L"] | None:
        """All parts together: what the next stem hears. None: nothing is there yet."""
        parts = list(self.parts().values())
        return mix(parts) if parts else None

    def tempo(self) -> Tempo:
        """Beats as they are known, or else tracked in the mix, with every fourth as a downbeat."""
        context, none = self.context, np.zeros(0)
        if context is not None and context.beats is not None:
            bars = every_nth(context.beats) if context.downbeats is None else context.downbeats
            return Tempo(context.beats, bars, "click" if context.is_click else "given")
        wav = self.mix()
        beats = none if wav is None or is_silent(wav) else track_beats(wav, self.sample_rate)
        return Tempo(beats, every_nth(beats), "tracked" if len(beats) else "none")


def description_of(stem: str, words: str) -> str:
    """What the model is told: ("drums", "bossa nova, slow") -> "drums, bossa nova, slow"."""
    parts = [part.strip() for part in words.split(",")]
    return ", ".join([stem, *(part for part in parts if part and part != stem)])


def _free(name: str, taken: dict) -> str:
    """name, name-2, name-3, ...: the first that is not taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
