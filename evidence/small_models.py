"""Small trainings from nano-base, alike in all but one thing, and what each has learnt to hear.

A short run listens if it begins with copying and clicks, on short windows, with positions that are
aligned and much of the target's own past hidden (dev/LOG.md). All of it is in `Recipe`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from evidence.desk import Desk
from evidence.ways import layout_for, prepare
from stage_lite.batch import hide_history, make_batch
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example, shuffle_contexts
from stage_lite.listening import code_losses
from stage_lite.model import StageModel
from stage_lite.prefix import ALIGNED, extend_embedding
from stage_lite.result_store import fingerprint, key_of
from stage_lite.shards import ShardDataset
from stage_lite.trainer import CHECKPOINT
from stage_lite.training import finetune
from stage_lite.weights import load_weights, save_weights

BORDER = 10  # first steps of the target whose loss is looked at codebook by codebook
CURRICULUM = {"self": 0.25, "click": 0.4, "mix": 0.35}
WINDOW_S = 1.28
CONDITIONS = ("click", "mix")
AT_ONCE = 32  # windows whose losses are computed together


@dataclass(frozen=True)
class Recipe:
    """All that tells one small training from another."""

    way: str = "prefix"  # see ways.py
    seed: int = 0  # of the windows, of what is dropped, of new weights
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-3
    anchor_frames: int | None = ALIGNED  # see prefix.build_prefix
    init: str = "kaiming"  # of the context token
    context_dropout: float = 0.1
    lora_rank: int = 0


class SmallModels:
    """Trains what is asked for, once, and measures it.

    Args:
        desk: base model, shards, store.
    """

    def __init__(self, desk: Desk):
        self.desk = desk

    @cached_property
    def data(self) -> ShardDataset:
        """Training windows of drums; example i depends on (seed, i) only."""
        return self._train_windows(0)

    def _train_windows(self, seed: int) -> ShardDataset:
        return ShardDataset(
            self.desk.tokens[:1], "drums", window_s=WINDOW_S, conditions=CURRICULUM,
            text=["description", "description_long"], seed=seed, split="train", n=10**9,
            verify=False,
        )  # fmt: skip

    @cached_property
    def _start(self) -> str:
        """Hash of what all trainings start from."""
        songs = sorted(self.data.song_ids)
        return key_of(fingerprint(self.desk.base.lm), songs, CURRICULUM, WINDOW_S, self._settings())

    def key(self, recipe: Recipe) -> str:
        """Of the weights that a recipe leads to."""
        return key_of(self._start, asdict(recipe))

    def folder(self, recipe: Recipe) -> Path:
        """Of a recipe's run, whatever its number of steps: a longer one goes on from there."""
        run = {name: v for name, v in asdict(recipe).items() if name != "steps"}
        name = f"{recipe.way}-seed{recipe.seed}-{key_of(self._start, run)[:10]}"
        return self.desk.args.work / "models" / name

    def model(self, recipe: Recipe) -> StageModel:
        """The trained model, from its file or by training it now."""
        model = self._untrained(recipe)
        folder = self.folder(recipe)
        file = folder / f"lm-{recipe.steps:06d}.safetensors"
        if not file.is_file():
            for steps in self._legs(recipe):
                self._train(model, recipe, steps, folder)
            model = self._untrained(recipe)
        load_weights(model.lm, file)
        return model

    def _is_watched(self, recipe: Recipe) -> bool:
        """Is it the plain run that is looked at on its way?"""
        plain = Recipe(seed=self.desk.args.seed_numbers[0], steps=recipe.steps)
        return recipe == plain

    def _legs(self, recipe: Recipe) -> list[int]:
        """Steps at which weights are kept: of the watched run also on the way, halves of halves."""
        steps, least = recipe.steps, max(1, self.desk.args.steps // 4)
        watched = range(9, 0, -1) if self._is_watched(recipe) else ()
        return [steps >> i for i in watched if steps >> i >= least] + [steps]

    def _untrained(self, recipe: Recipe) -> StageModel:
        base = self.desk.base
        config = dataclasses.replace(base.config, name=f"small, {recipe.way}",
                                     anchor_frames=recipe.anchor_frames)  # fmt: skip
        model = StageModel(deepcopy(base.lm), base.codec, config)
        extend_embedding(model.lm, init=recipe.init, seed=recipe.seed)
        prepare(model.lm, recipe.way, recipe.seed)
        return model

    def _train(self, model: StageModel, recipe: Recipe, steps: int, folder: Path) -> None:
        file = folder / f"lm-{steps:06d}.safetensors"
        if file.is_file():
            return
        print(f"training: {recipe.way}, seed {recipe.seed}, up to step {steps}", flush=True)
        run = finetune(
            model,
            self._train_windows(recipe.seed),
            steps=steps,
            checkpoint_dir=folder,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            context_dropout=recipe.context_dropout,
            lora_rank=recipe.lora_rank,
            seed=recipe.seed,
            save_every=50,
            progress={"bar": True, "lines": _line, "none": False}[self.desk.args.progress],
            lay_out=layout_for(recipe.way, model),
            **self._settings(),
        )
        if run.interrupted:
            raise KeyboardInterrupt
        if run.step != steps:
            raise StageLiteError(
                f"the run in {folder} is at step {run.step}; expected {steps}; delete the folder"
            )
        save_weights(model.lm, file)
        if not self._is_watched(recipe):
            (folder / CHECKPOINT).unlink()  # nobody will go on from here

    def _settings(self) -> dict[str, Any]:
        """What is alike in all small trainings; see training.TrainingConfig."""
        return {
            "text_dropout": 0.3,
            "history_dropout": 0.85,
            "spread_positions": True,
            "warmup_steps": 50,
            "precision": self.desk.args.precision,
        }

    # --- what it has learnt ----------------------------------------------------------------------

    def losses(self, recipe: Recipe, condition: str) -> dict[str, ndarray]:
        """Losses of every test window in nats, with the right context and another song's.

        Returns:
            "right", "shuffled", the same with "_hidden" (past hidden) and "_hidden_0" (codebook 0
            of it): Float[n]; "border": Float[n, BORDER, K], right context, past there.
        """
        name = f"losses, {recipe.way}, seed {recipe.seed}, {condition}"
        return self._measured(
            name, self.key(recipe), lambda: self.model(recipe), recipe.way, condition
        )

    def losses_of_shipped(self, condition: str) -> dict[str, ndarray]:
        """The same of the judged model, after all of its training."""
        model = self.desk.model
        key = self.desk.studio().lm_hash
        return self._measured(f"losses, {model.config.name}, {condition}", key, lambda: model,
                              "prefix", condition)  # fmt: skip

    def _measured(
        self, name: str, weights: str, load: Callable[[], StageModel], way: str, condition: str
    ) -> dict[str, ndarray]:
        examples = self.windows()[condition]
        pairs = list(zip(examples, shuffle_contexts(examples), strict=True))
        keys = [
            key_of("small", weights, a.description, a.context_codes, b.context_codes,
                   a.target_codes)
            for a, b in pairs
        ]  # fmt: skip
        loaded: list[StageModel] = []

        def compute(batch: Sequence[tuple[Example, Example]]) -> list[dict]:
            if not loaded:
                loaded.append(load())
            return _losses(loaded[0], way, batch)

        self.desk.store.fill(name, dict(zip(keys, pairs, strict=True)), compute, AT_ONCE)
        found = [self.desk.store[key] for key in keys]
        return {loss: np.array([f[loss] for f in found]) for loss in found[0]}

    def windows(self) -> dict[str, list[Example]]:
        """Condition -> test windows, as long as those of the training."""
        return self.desk.windows("drums", CONDITIONS, WINDOW_S, fewest_beats=0)


def _line(done: int, steps: int) -> None:
    """Progress for a log."""
    if done % 20 == 0 or done == steps:
        print(f"step {done} of {steps}", flush=True)


@torch.inference_mode()
def _losses(
    model: StageModel, way: str, pairs: Sequence[tuple[Example, Example]]
) -> list[dict[str, Any]]:
    lay_out = layout_for(way, model) or (lambda batch: batch)
    columns: dict[str, list] = {}
    for name, rows in zip(("right", "shuffled"), zip(*pairs, strict=True), strict=True):
        batch = lay_out(make_batch(model, rows))
        everything = torch.ones_like(batch.prefix.attention_mask)
        blind = hide_history(batch, everything, model.special_token_id)
        seen, unseen = code_losses(model, batch), code_losses(model, blind)  # [B, T, K]
        columns[name] = seen.nanmean(dim=(1, 2)).tolist()
        columns[f"{name}_hidden"] = unseen.nanmean(dim=(1, 2)).tolist()
        columns[f"{name}_hidden_0"] = unseen[..., 0].nanmean(dim=1).tolist()
        if name == "right":
            columns["border"] = seen[:, :BORDER].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
