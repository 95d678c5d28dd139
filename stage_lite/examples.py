"""What a data set hands out: one window of music with the stem that is to be played in it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError


@dataclass
class Example:
    """One (context, target, text, beats), as audio or as codes.

    A stem folder fills `context` and `target`, a token shard fills `context_codes` and
    `target_codes`; the rest is the same, so that training and evaluation take either.
    """

    target: Float[Tensor, "1 L"] | None
    context: Float[Tensor, "1 Lc"] | None  # None: no context
    description: str
    beat_times: Float[ndarray, "n"]  # seconds from the start of the window, increasing
    downbeat_times: Float[ndarray, "m"]
    song_id: str
    start_s: float  # of the window in the song
    duration_s: float  # of the window
    condition: str  # what made the context: "mixture", "metronome", ..., "self" or "none"
    target_name: str = ""
    sample_rate: int = 32000  # Hz, of `target` and `context`
    context_codes: Int[Tensor, "K Tc"] | None = None
    target_codes: Int[Tensor, "K T"] | None = None
    bpm: float | None = None
    groove: str | None = None
    family: str | None = None
    rate: float = 1.0  # of an augmented window: 1.2 is played faster than recorded
    semitones: int = 0  # of an augmented window: how much higher it sounds than recorded


def beats_in(times_s: Sequence[float] | ndarray, start_s: float, duration_s: float) -> ndarray:
    """Those of the times that fall into a window, in seconds from its start."""
    times = np.asarray(times_s, dtype=np.float64)
    return times[(times >= start_s) & (times < start_s + duration_s)] - start_s


def description_of(labels: Mapping, stem: str, text: str = "description") -> str:
    """Text of a stem: labels[text][stem], else the stem and the family of its groove."""
    described = labels.get(text) or {}
    if isinstance(described, str):
        return described
    family = labels.get("family")
    return described.get(stem) or (f"{stem}, {family}" if family else stem)


def weights_of(choice: str | Sequence[str] | Mapping[str, float], what: str) -> dict[str, float]:
    """A name, several, or name -> weight, as name -> weight; a weight of 0 takes the name out."""
    if isinstance(choice, str):
        choice = [choice]
    weights = dict(choice) if isinstance(choice, Mapping) else dict.fromkeys(choice, 1.0)
    weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
    if not weights or not min(weights.values()) > 0:
        raise StageLiteError(
            f"{what} is {choice!r}; expected names, or name -> weight with positive weights"
        )
    return weights


def shuffle_contexts(examples: Sequence[Example]) -> list[Example]:
    """The same targets, each with the context of another song: the floor of every comparison.

    Who gets which: see `lenders`.

    Raises:
        StageLiteError: more than half of the examples are of one song.
    """
    return [
        dataclasses.replace(
            example,
            context=examples[i].context,
            context_codes=examples[i].context_codes,
            condition=f"shuffled {examples[i].condition}",
        )
        for example, i in zip(examples, lenders([e.song_id for e in examples]), strict=True)
    ]


def lenders(song_ids: Sequence[str]) -> list[int]:
    """For each example the number of one of another song, each used once.

    Depends on the order of the examples only.

    Raises:
        StageLiteError: more than half of the examples are of one song.
    """
    order = sorted(range(len(song_ids)), key=lambda i: song_ids[i])
    most = max(Counter(song_ids).values(), default=0)
    if 2 * most > len(order):
        raise StageLiteError(
            f"cannot give {len(order)} examples the context of another song: {most} are of one "
            "song; expected at most half; take more songs"
        )
    # Sorted by song, a shift by the largest group always lands in another song.
    found = [0] * len(order)
    for place, i in enumerate(order):
        found[i] = order[(place + most) % len(order)]
    return found
