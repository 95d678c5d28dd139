"""What the rows share: the models, the windows, and a store of everything that was computed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from evidence.content import Missing
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.metrics.same_windows import same_windows
from stage_lite.metrics.sounds import Sounds
from stage_lite.metrics.studio import Studio
from stage_lite.metrics.systems import Sampling
from stage_lite.model import StageModel, load
from stage_lite.result_store import ResultStore, fingerprint, key_of

FULL_N = 256  # windows that a row is meant to have
WINDOW_S = 8.0  # what the shipped models are trained on


class Desk:
    """Settings, and what they lead to, made when it is first used.

    Args:
        args: of `__main__.arguments`.
    """

    def __init__(self, args: argparse.Namespace):
        self.args, self.n, self.seed = args, args.n, args.seed
        self.store = ResultStore(args.work / "results", args.progress)
        self._studios: dict[Any, Studio] = {}
        self._windows: dict[Any, dict[str, list[Example]]] = {}

    @property
    def tokens(self) -> list[Path]:
        """Folders of shards that are there."""
        there = [folder for folder in self.args.tokens if any(folder.glob("*.safetensors"))]
        if not there:
            raise Missing(f"no token shards in {', '.join(map(str, self.args.tokens))}")
        return there

    @cached_property
    def model(self) -> StageModel:
        """The model that is judged."""
        return _loaded(self.args.model)

    @cached_property
    def base(self) -> StageModel:
        """What it was trained from: no context token, words alone."""
        base = _loaded(self.args.base)
        if fingerprint(base.codec) != self.sounds.codec_hash:
            raise Missing(f"{self.args.base} has another codec than {self.args.model}")
        return base

    @cached_property
    def sounds(self) -> Sounds:
        """Of all models here: they have one codec."""
        return Sounds(self.model)

    def studio(self, model: StageModel | None = None, **sampling: Any) -> Studio:
        """A model at work, the judged one if none is given; `sampling` as of systems.Sampling."""
        model = self.model if model is None else model
        key = (id(model), tuple(sorted(sampling.items())))
        if key not in self._studios:
            sampling, size = Sampling(**sampling), self.args.batch_size
            self._studios[key] = Studio(model, self.store, sampling, self.seed, size, self.sounds)
        return self._studios[key]

    def windows(
        self,
        target: str = "drums",
        conditions: Sequence[str] = ("click", "mix"),
        window_s: float = WINDOW_S,
        n: int | None = None,
        fewest_beats: int = 4,
    ) -> dict[str, list[Example]]:
        """Condition -> the same windows of the test split."""
        n = self.n if n is None else n
        window_s = min(window_s, self.args.longest_s)
        key = (target, tuple(conditions), window_s, n, fewest_beats)
        if key not in self._windows:
            self._windows[key] = same_windows(
                self.tokens,
                target,
                conditions,
                n,
                window_s=window_s,
                seed=self.seed,
                split="test",
                fewest_beats=fewest_beats,
            )
        return self._windows[key]

    def codes_of(self, name: str, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Audio at the model's sample rate, as codes [K, T]."""
        codec = self.sounds.codec_hash
        keys = [key_of("encoded", codec, wav) for wav in wavs]

        def encode(batch: Sequence[torch.Tensor]) -> list:
            rate = self.model.sample_rate
            return [self.model.encode(wav, rate)[0].tolist() for wav in batch]

        self.store.fill(name, dict(zip(keys, wavs, strict=True)), encode, self.args.batch_size)
        return [torch.tensor(self.store[key]) for key in keys]


def _loaded(name: str | Path) -> StageModel:
    try:
        return load(name)
    except StageLiteError as error:
        raise Missing(f"the model {name} is not there: {error}") from None
