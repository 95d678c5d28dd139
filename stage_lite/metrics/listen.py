"""What an evaluation hears in each clip, each thing once: beats, onsets, chroma, embeddings ...

A measure is a function of sounds; several metrics may be computed from what it finds (beat F1, the
tempo error and continuity all from the beats). Results are kept under the hash of the sounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..audio import is_silent, resample
from ..errors import StageLiteError
from ..examples import Example
from ..result_store import ResultStore, fingerprint, key_of
from .agreement import chroma_agreements
from .beats import find_onsets
from .sounds import Clip, Sounds
from .trackers import Tracker, tracked_beats

if TYPE_CHECKING:
    from .contrastive import PairModel
    from .text import TextClassifier

THREADS = 4  # at most; librosa's work is half of it outside of Python's lock
NOT_A_MIX = frozenset({"metronome", "click", "self", "none"})  # conditions
UNPITCHED = frozenset({"drums"})  # targets


class Item(NamedTuple):
    """A clip in its window; the mix is the window's own context whatever the clip is."""

    clip: Clip
    mix: Clip | None
    example: Example


class Heard(NamedTuple):
    """An item as audio, at `sample_rate`."""

    wav: Tensor
    mix: Tensor | None
    example: Example
    sample_rate: int


@dataclass(frozen=True)
class Measure:
    """One way of listening.

    Attributes:
        name: unique.
        compute: items of one batch, and a function to map over them in threads -> one value each,
            for JSON; `unknown(reason)` where an item has none.
        version: what the values depend on besides the sounds; None: on a function of the user, of
            which nothing is known, so that they are not kept beyond this run.
        of_mix: the value depends on the mix too.
        of_text: on the description too.
        pitched: of pitched targets only.
    """

    name: str
    compute: Callable[[Sequence[Heard], Callable], list]
    version: Any = ""
    of_mix: bool = False
    of_text: bool = False
    pitched: bool = False

    def applies(self, example: Example) -> bool:
        """Has this measure a meaning in such a window?"""
        if self.of_mix and example.condition in NOT_A_MIX:
            return False
        return not (self.pitched and example.target_name in UNPITCHED)


def unknown(error: object) -> dict[str, str]:
    """The value of a window that has none, with the reason."""
    return {"unknown": str(error)}


class Listener:
    """Applies measures to items and remembers.

    Args:
        sounds: makes audio of clips.
        store: keeps results; those of a user's functions stay in memory.

    Attributes:
        failed: measure -> what it raised; it is not asked again.
    """

    def __init__(self, sounds: Sounds, store: ResultStore):
        self.sounds, self.store = sounds, store
        self.failed: dict[str, str] = {}
        self._memory = ResultStore(None, "none")

    def listen(
        self, items: Sequence[Item], measures: Sequence[Measure], batch_size: int, bar: Any = None
    ) -> None:
        """Find whatever is not known yet.

        Args:
            items: in an order in which neighbours share sounds.
            measures: applied where they apply.
            batch_size: items whose audio is in memory at once.
            bar: a tqdm bar that is moved on by one for each item.
        """
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            for start in range(0, len(items), batch_size):
                batch = items[start : start + batch_size]
                self._batch(batch, [m for m in measures if m.name not in self.failed], pool.map)
                if bar is not None:
                    bar.update(len(batch))

    def __call__(self, measure: Measure, item: Item) -> Any:
        """What `listen` found; None where the measure does not apply or has failed."""
        if measure.name in self.failed or not measure.applies(item.example):
            return None
        return self._store_of(measure)[self._key(measure, item)]

    def _batch(self, items: Sequence[Item], measures: Sequence[Measure], map_: Callable) -> None:
        todo: dict[str, dict[str, Item]] = {}
        for measure in measures:
            keyed = {self._key(measure, i): i for i in items if measure.applies(i.example)}
            known = self._store_of(measure)
            todo[measure.name] = {key: i for key, i in keyed.items() if key not in known}
        needed: dict[str, Clip] = {}
        for measure in measures:
            for item in todo[measure.name].values():
                needed[item.clip.key] = item.clip
                if measure.of_mix:
                    needed[item.mix.key] = item.mix
        wavs = dict(zip(needed, self.sounds.wavs(list(needed.values())), strict=True))
        for measure in measures:
            jobs = todo[measure.name]
            if not jobs:
                continue
            heard = [
                Heard(
                    wavs[item.clip.key],
                    wavs[item.mix.key] if measure.of_mix else None,
                    item.example,
                    self.sounds.sample_rate,
                )
                for item in jobs.values()
            ]
            try:
                values = measure.compute(heard, map_)
            except StageLiteError as error:
                self.failed[measure.name] = str(error)
                continue
            for key, value in zip(jobs, values, strict=True):
                self._store_of(measure)[key] = value

    def _store_of(self, measure: Measure) -> ResultStore:
        return self._memory if measure.version is None else self.store

    def _key(self, measure: Measure, item: Item) -> str:
        return key_of(
            measure.name,
            measure.version,
            item.clip.key,
            item.mix.key if measure.of_mix else None,
            item.example.description if measure.of_text else None,
        )


# --- the measures --------------------------------------------------------------------------------


def beats_measure(tracker: Tracker, version: str | None) -> Measure:
    """Beat times in seconds."""
    tracker = guarded(tracker, "the beat tracker") if version is None else tracker

    def one(heard: Heard) -> list[float]:
        return tracked_beats(heard.wav, heard.sample_rate, tracker).tolist()

    return Measure("beats", lambda heard, map_: list(map_(one, heard)), version)


def onsets_measure() -> Measure:
    """Onset times in seconds."""

    def one(heard: Heard) -> list[float]:
        return find_onsets(heard.wav, heard.sample_rate).tolist()

    return Measure("onsets", lambda heard, map_: list(map_(one, heard)))


def chroma_measure() -> Measure:
    """`coherence.chroma_agreement`, with the chroma of a mix taken once for all of its stems."""

    def group(members: Sequence[Heard]) -> list:
        try:
            pairs = [cut(h.mix, h.wav) for h in members]
            return chroma_agreements(
                pairs[0][0], [stem for _, stem in pairs], members[0].sample_rate
            )
        except StageLiteError as error:
            return [unknown(error)] * len(members)

    def compute(heard: Sequence[Heard], map_: Callable) -> list:
        groups: dict[int, list[int]] = {}
        for i, h in enumerate(heard):
            groups.setdefault(id(h.mix), []).append(i)
        values: list = [None] * len(heard)
        found = map_(group, [[heard[i] for i in places] for places in groups.values()])
        for places, mine in zip(groups.values(), found, strict=True):
            for i, value in zip(places, mine, strict=True):
                values[i] = value
        return values

    return Measure("chroma", compute, of_mix=True, pitched=True)


def coherence_measure(model: PairModel) -> Measure:
    """`coherence.coherence`, with the vectors of a mix taken once for all of its stems."""
    rate = model.config.sample_rate

    def compute(heard: Sequence[Heard], map_: Callable) -> list:
        vectors: dict[tuple[int, int], Tensor] = {}
        values: list = []
        with torch.inference_mode():
            for h in heard:
                mix, stem = cut(h.mix, h.wav)
                if mix.shape[-1] < h.sample_rate or is_silent(mix):
                    values.append(unknown("the mix is silent or shorter than 1 s"))
                    continue
                if is_silent(stem):
                    values.append(0.0)
                    continue
                place = (id(h.mix), mix.shape[-1])
                if place not in vectors:
                    vectors[place] = model.embed(resample(mix, h.sample_rate, rate))
                mine = model.embed(resample(stem, h.sample_rate, rate))
                values.append(float(model.scores(vectors[place], mine)))
        return values

    return Measure("coherence", compute, fingerprint(model), of_mix=True)


def text_measure(model: TextClassifier) -> Measure:
    """Probability of the stem and of the family that the description names."""
    from .text import text_agreement

    def one(heard: Heard) -> Any:
        try:
            found = text_agreement(heard.wav, heard.sample_rate, heard.example.description, model)
        except StageLiteError as error:
            return unknown(error)
        return [found.stem_probability, found.family_probability]

    return Measure(
        "text", lambda heard, map_: [one(h) for h in heard], fingerprint(model), of_text=True
    )


def embedding_measure(embed: Callable, version: Any) -> Measure:
    """Rows of an embedding, one or more per clip."""
    embed = guarded(embed, "the embedding") if version is None else embed

    def one(heard: Heard) -> list[list[float]]:
        rows = embed([heard.wav], heard.sample_rate)
        if getattr(rows, "ndim", None) != 2 or not len(rows):
            raise StageLiteError(
                f"the embedding gave {getattr(rows, 'shape', type(rows).__name__)} for one clip; "
                "expected an array [n, d] with at least one row"
            )
        return rows.tolist()

    return Measure("embedding", lambda heard, map_: list(map_(one, heard)), version)


def guarded(function: Callable, name: str) -> Callable:
    """A user's function, whose own errors become a sentence: other metrics shall still come out."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise StageLiteError(f"{name} raised {type(error).__name__}: {error}") from error

    return call


def cut(mix: Tensor, stem: Tensor) -> tuple[Tensor, Tensor]:
    """Both to the length of the shorter one: a context may end before its window does."""
    length = min(mix.shape[-1], stem.shape[-1])
    return mix[:, :length], stem[:, :length]
