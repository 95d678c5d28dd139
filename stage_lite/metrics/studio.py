"""One model at work on windows: its losses, what it plays, and the beats and onsets in that.

Everything is kept in a store under the hash of what it was made from, so that a study of many
conditions can be stopped at any time, and never does the same twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy import ndarray

from ..batch import hide_history, make_batch
from ..examples import Example
from ..listening import code_losses
from ..result_store import ResultStore, fingerprint, key_of
from .beats import beat_f1_of_times, onset_alignment_of_times
from .listen import Item, Listener, Measure, beats_measure, onsets_measure
from .sounds import Clip, Sounds
from .systems import Sampling, Systems
from .trackers import get_tracker

if TYPE_CHECKING:
    from ..model import StageModel

METRICS = ("beat_f1", "onset_alignment")
LOSSES = ("loss", "loss_first_s", "loss_hidden")
AT_ONCE = 32  # clips that are listened to in one go

Events = list[dict[str, ndarray]]  # of each window: "beats" and "onsets", in seconds


class Studio:
    """A model, and all that has been computed with it.

    Args:
        model: with or without the context token.
        store: keeps results; several models may share one.
        sampling: how to generate.
        seed: of the noise in each window, which is the same whatever the context.
        batch_size: windows at once.
        sounds: of another studio whose model has the same codec, to share what is in its memory.
    """

    def __init__(
        self,
        model: StageModel,
        store: ResultStore,
        sampling: Sampling | None = None,
        seed: int = 0,
        batch_size: int = 16,
        sounds: Sounds | None = None,
    ):
        self.model, self.store, self.batch_size = model, store, batch_size
        self.sounds = Sounds(model) if sounds is None else sounds
        self.systems = Systems(model, self.sounds, store, sampling or Sampling(), seed, batch_size)
        self.listener = Listener(self.sounds, store)
        self.lm_hash = key_of(fingerprint(model.lm), model.config.anchor_frames)
        self._beats_and_onsets = [
            beats_measure(get_tracker("librosa"), "librosa"),
            onsets_measure(),
        ]

    def losses(self, name: str, examples: Sequence[Example]) -> dict[str, ndarray]:
        """Teacher-forced losses in nats, one per window, by the names of `LOSSES`: of the whole
        window, its first second, and with the target's own past hidden."""
        keys = [key_of("loss", self.lm_hash, *_inputs(e), e.target_codes) for e in examples]
        jobs = dict(zip(keys, examples, strict=True))
        self.store.fill(f"losses, {name}", jobs, self._compute_losses, self.batch_size)
        values = [self.store[key] for key in keys]
        return {loss: np.array([v[loss] for v in values]) for loss in LOSSES}

    @torch.inference_mode()
    def _compute_losses(self, examples: Sequence[Example]) -> list[dict[str, float]]:
        batch = make_batch(self.model, examples)
        everything = torch.ones_like(batch.prefix.attention_mask)
        blind = hide_history(batch, everything, self.model.special_token_id)
        seen = code_losses(self.model, batch)  # [B, T, K]
        first = seen[:, : round(self.model.frame_rate)]
        parts = (seen, first, code_losses(self.model, blind))
        columns = [x.nanmean(dim=(1, 2)).tolist() for x in parts]
        return [dict(zip(LOSSES, values, strict=True)) for values in zip(*columns, strict=True)]

    def generate(self, name: str, examples: Sequence[Example]) -> list[Clip]:
        """What the model plays to the context's codes of each window, or from the words alone."""
        contexts = [e.context_codes for e in examples]
        return self.systems.generate(f"generated, {name}", examples, contexts)

    def real(self, examples: Sequence[Example]) -> list[Clip]:
        """The windows' own stems."""
        return [self.systems.real(e) for e in examples]

    def contexts(self, examples: Sequence[Example]) -> list[Clip]:
        """The windows' contexts, as sounds."""
        return [self.systems.context(e) for e in examples]

    def events(self, name: str, clips: Sequence[Clip], examples: Sequence[Example]) -> Events:
        """Beats (librosa's) and onsets of each clip."""
        found = self.heard(name, clips, examples, self._beats_and_onsets)
        return [{what: np.array(times) for what, times in one.items()} for one in found]

    def heard(
        self,
        name: str,
        clips: Sequence[Clip],
        examples: Sequence[Example],
        measures: Sequence[Measure],
    ) -> list[dict[str, Any]]:
        """What each measure finds in each clip, by the measure's name; see `listen`."""
        from tqdm.auto import tqdm

        items = [Item(clip, None, e) for clip, e in zip(clips, examples, strict=True)]
        quiet, every_s = self.store.progress == "none", 0.1 if self.store.progress == "bar" else 20
        bar = tqdm(total=len(items), desc=f"heard, {name}", disable=quiet, mininterval=every_s)
        with bar:
            self.listener.listen(items, measures, AT_ONCE, bar)
        return [{m.name: self.listener(m, item) for m in measures} for item in items]


def without_context(example: Example) -> Example:
    """The same window, to be played from the words alone."""
    return dataclasses.replace(example, context=None, context_codes=None, condition="none")


def scores_of(examples: Sequence[Example], events: Events) -> dict[str, ndarray]:
    """The scores of `METRICS`, each window against its own beats."""
    pairs = list(zip(examples, events, strict=True))
    return {
        "beat_f1": np.array([beat_f1_of_times(e.beat_times, x["beats"]) for e, x in pairs]),
        "onset_alignment": np.array([
            onset_alignment_of_times(e.beat_times, x["onsets"], e.duration_s) for e, x in pairs
        ]),
    }  # fmt: skip


def scores_of_others(
    examples: Sequence[Example], events: Events, others: Sequence[Sequence[int]]
) -> dict[str, ndarray]:
    """Of each window: the mean score of what is played in other windows, against its own beats.

    Args:
        examples: the windows.
        events: of what is played in each.
        others: for each window the numbers of the others, see `same_windows.other_songs`.
    """
    means: dict[str, list[float]] = {m: [] for m in METRICS}
    for e, numbers in zip(examples, others, strict=True):
        found = scores_of([e] * len(numbers), [events[i] for i in numbers])
        for m in METRICS:
            means[m].append(float(found[m].mean()))
    return {m: np.array(values) for m, values in means.items()}


def _inputs(e: Example) -> tuple:
    return e.description, "no context" if e.context_codes is None else e.context_codes
