"""Sizes of a language model, and audiocraft's LMModel built from them.

Source: Copet et al. 2023 (MusicGen), arXiv:2306.05284.   Notebook: 02_language_model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from stage_lite.context_encoder import ContextEncoder
from stage_lite.errors import StageLiteError


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a language model in MusicGen's geometry; JSON, rebuilt by LMConfig(**json)."""

    n_q: int = 4  # codebooks
    card: int = 512  # codes of a codebook
    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    hidden_scale: int = 4  # width of the feed-forward part, in dims
    vocabulary: Sequence[str] = ()  # words that text.WordConditioner knows
    word_dim: int = 64  # width of its table
    t5: str | None = None  # a T5 that reads the text instead: "t5-base" as in MusicGen, or a folder
    word_dropout: float = 0.0  # share of the words that training hides from a T5
    context_token: bool = False  # whether the embedding holds STAGE's added row
    context_encoder: int | None = None  # width of context_encoder.ContextEncoder; STAGE has none

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))  # JSON knows only lists
        for name in ("n_q", "card", "dim", "num_layers", "num_heads", "hidden_scale", "word_dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise StageLiteError(f"LMConfig.{name} is {value!r}: expected a positive integer")
        if self.dim % self.num_heads or self.dim % 2:
            raise StageLiteError(
                f"LMConfig.dim is {self.dim}: expected an even multiple of "
                f"num_heads = {self.num_heads}"
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        return asdict(self) | {"vocabulary": list(self.vocabulary)}


def build_lm(
    config: LMConfig, seed: int | None = None, text_reader: nn.Module | None = None
) -> nn.Module:
    """Make audiocraft's LMModel in MusicGen's geometry, freshly initialised, in eval mode.

    Delay pattern 0, 1, ..., K - 1; sinusoidal positions, norm first, no biases in attention,
    feed-forward and heads; text by cross-attention from the one condition "description".

    Args:
        config: sizes.
        seed: of the initialisation (audiocraft's: truncated normal, scaled by depth). No global
            random state is touched; None draws on it.
        text_reader: the conditioner for "description"; None builds what `config` says.
    """
    from stage_lite.upstream import audiocraft_classes

    ac = audiocraft_classes()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if text_reader is None:
            text_reader = _text_reader(config)
        lm = ac.LMModel(
            ac.DelayedPatternProvider(config.n_q),
            ac.ConditioningProvider({"description": text_reader}),
            ac.ConditionFuser(
                {"cross": ["description"], "prepend": [], "sum": [], "input_interpolate": []}
            ),
            n_q=config.n_q,
            card=config.card,
            dim=config.dim,
            num_heads=config.num_heads,
            hidden_scale=config.hidden_scale,
            num_layers=config.num_layers,
            norm="layer_norm",
            norm_first=True,
            activation="gelu",
            dropout=0.0,
            bias_proj=False,
            bias_ff=False,
            bias_attn=False,
            causal=True,
            memory_efficient=True,
            cross_attention=True,
            positional_embedding="sin",
            weight_init="gaussian",
            depthwise_init="current",
            zero_bias_init=True,
        )
    if config.context_token:
        from stage_lite.prefix import extend_embedding

        extend_embedding(lm, seed=0 if seed is None else seed)
    if config.context_encoder is not None:
        lm.context_encoder = ContextEncoder(
            config.n_q, config.card, config.dim, config.context_encoder
        )
    return lm.eval()


def _text_reader(config: LMConfig) -> nn.Module:
    if config.t5 is None:
        from stage_lite.text import WordConditioner

        return WordConditioner(config.vocabulary, config.word_dim, config.dim)
    from stage_lite.interop.t5 import T5Reader

    return T5Reader(config.t5, config.dim, word_dropout=config.word_dropout)
