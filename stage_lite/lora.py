"""LoRA: train two thin matrices beside each large one, and add them to it at the end.

    W + scaling * B A,   B [out, rank], A [rank, in],   scaling = alpha / rank

Optimizer moments and gradients shrink to a few percent, the quality of a full fine-tune is nearly
kept. The matrices of attention (queries, keys and values in one) and of the feed-forward part get
them. The embedding is trained as a whole: the context token's row would otherwise stay random.
`peft` does the work; it is optional: `pip install peft`.

Source: Hu et al. 2021, arXiv:2106.09685.   Notebook: 04_fine_tuning.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch
from torch import nn

from .errors import StageLiteError

MODULES = ["out_proj", "linear1", "linear2"]  # of a transformer layer of audiocraft
PARAMETERS = ["self_attn.in_proj_weight", "cross_attention.in_proj_weight"]
DEPTH = 2  # wrappers in wrappers: attention, and the projection in it; peft unwraps one at a time


class Adapters:
    """LoRA on an LMModel, in place, from now until `merge` or `remove`.

    Args:
        lm: audiocraft's LMModel. All its parameters but the embedding are frozen.
        rank: of the added matrices.
        alpha: their scaling times `rank`.
        seed: of A; B is zero, so that nothing changes at first.

    Raises:
        StageLiteError: peft is not installed, or the rank is below 1.
    """

    def __init__(self, lm: nn.Module, rank: int, alpha: float, seed: int = 0):
        if rank < 1:
            raise StageLiteError(f"lora_rank is {rank}; expected at least 1, or 0 for no LoRA")
        if importlib.util.find_spec("peft") is None:
            raise StageLiteError(
                "LoRA was asked for and the package peft is not installed; expected it; "
                "try `pip install peft`, or lora_rank=0"
            )
        from peft import LoraConfig, LoraModel

        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=MODULES, target_parameters=PARAMETERS
        )
        self._learned = {name: p.requires_grad for name, p in lm.named_parameters()}
        self._lm = lm
        device = lm.emb[0].weight.device
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about models of transformers
            torch.manual_seed(seed)
            self._peft: Any = LoraModel(lm.cpu(), config, "default")
        lm.to(device)
        for table in lm.emb:
            table.weight.requires_grad_(True)

    def merge(self) -> None:
        """Add the matrices to the weights and take the wrappers off: an ordinary LMModel again."""
        for _ in range(DEPTH):
            self._peft.merge_and_unload()
        self._as_before()

    def remove(self) -> None:
        """Take them off unused."""
        for _ in range(DEPTH):
            self._peft.unload()
        self._as_before()

    def _as_before(self) -> None:
        for name, p in self._lm.named_parameters():
            p.requires_grad_(self._learned[name])
