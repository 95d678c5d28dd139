"""What is read from a folder or a file of another program, before it becomes a StageModel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..codec import CodecConfig
from ..errors import StageLiteError
from ..lm_config import LMConfig
from ..prefix import has_context_row
from ..weights import DTYPES

MUSICGEN_S = 30.0  # seconds that every published MusicGen was trained on
STAGE_S = 10.0  # of context and of target, for the official STAGE


@dataclass(frozen=True)
class Parts:
    """A language model, its codec, and their sizes."""

    name: str
    lm: nn.Module
    codec: nn.Module
    codec_config: CodecConfig
    trained_s: float = MUSICGEN_S
    anchor_frames: int | None = None  # see prefix.build_prefix

    @property
    def lm_config(self) -> LMConfig:
        """The sizes of an LMModel with a T5Reader, read off its modules."""
        lm = self.lm
        reader = lm.condition_provider.conditioners["description"]
        layer = lm.transformer.layers[0]
        return LMConfig(
            n_q=lm.n_q,
            card=lm.card,
            dim=lm.dim,
            num_layers=len(lm.transformer.layers),
            num_heads=layer.self_attn.num_heads,
            hidden_scale=layer.linear1.weight.shape[0] // lm.dim,
            t5=reader.name,
            word_dropout=reader.word_dropout,
            context_token=has_context_row(lm),
        )


def check_dtype(dtype: str, device: torch.device | str) -> torch.dtype:
    """The torch type of a name.

    Raises:
        StageLiteError: unknown, or fp16 on a CPU, which computes it slowly and overflows.
    """
    if dtype == "int8":
        if torch.device(device).type != "cpu":
            raise StageLiteError(
                f"dtype is 'int8', which is for CPUs, and the device {device}; expected 'fp32', "
                "'bf16' or 'fp16' there"
            )
        return torch.int8
    if dtype not in DTYPES:
        raise StageLiteError(f"dtype is {dtype!r}; expected one of {sorted([*DTYPES, 'int8'])}")
    if dtype == "fp16" and torch.device(device).type == "cpu":
        raise StageLiteError(
            "dtype is 'fp16' on a CPU, where half precision is slow and overflows; expected 'fp32' "
            "or 'bf16' there. Files in fp16 load as fp32 by themselves"
        )
    return DTYPES[dtype]
