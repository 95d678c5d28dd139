"""What the forward pass reads from audiocraft's LMModel: a view of its weights, layer by layer.

How a matrix is held and applied is open: `weights_of(lm, linear=...)` takes any class with
`Linear`'s two methods, which is how generation gets bf16 and int8 (matrices.py).

Notebook: 02_language_model.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.errors import StageLiteError


class Linear:
    """A matrix and how to apply it. `weights_of(lm, linear=...)` takes any class with these two."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual + self(x), which some kinds of matrices do in one call."""
        return residual + self(x)


class _Module(Linear):
    """A module that stands where audiocraft has a plain linear layer, such as a LoRA wrapper."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x)


Norm = tuple[Tensor, Tensor, float]  # weight, bias, epsilon


@dataclass(slots=True)
class LayerWeights:
    """One transformer layer."""

    norm1: Norm
    qkv: Any  # Linear dim -> 3 dim: queries, keys, values of the self-attention
    out: Any
    norm_cross: Norm
    cross_q: Any
    cross_k: Any
    cross_v: Any
    cross_out: Any
    norm2: Norm
    up: Any  # Linear dim -> hidden
    down: Any
    activation: Callable[[Tensor], Tensor]


@dataclass(slots=True)
class LMWeights:
    """All that the forward pass reads from an LMModel."""

    n_q: int
    card: int
    dim: int
    num_heads: int
    table: Tensor  # [K * rows, dim]: the embedding tables below one another
    row_offsets: Tensor  # [K, 1]: where each codebook's rows begin
    layers: list[LayerWeights]
    out_norm: Norm
    heads: Any  # Linear dim -> K * card
    max_period: float
    positional_scale: float
    null_text_is_nothing: bool  # no biases: zeros in, zeros out


def weights_of(
    lm: nn.Module,
    linear: Callable[[Tensor, Tensor | None], Any] = Linear,
    layers_of: Iterable[nn.Module] | None = None,
) -> LMWeights:
    """A view of an LMModel's weights; no copy but of the small tables.

    Args:
        lm: audiocraft's LMModel.
        linear: makes the object that applies a matrix from (weight, bias).
        layers_of: the layers one by one, for who fills or empties them on the way; None: lm's own.

    Raises:
        StageLiteError: the model has parts that this forward pass does not know, or its matrices
            were given up for int8.
    """
    _check_supported(lm)
    if layers_of is None:
        check_whole(lm)
        layers_of = lm.transformer.layers
    layers = []
    for layer in layers_of:
        cross, dim = inside(layer.cross_attention), lm.dim
        attn, rows = inside(layer.self_attn), _in_proj(layer.cross_attention)
        q, k, v = (rows[i * dim : (i + 1) * dim] for i in range(3))
        bias = cross.in_proj_bias
        bq, bk, bv = (
            (None,) * 3 if bias is None else (bias[i * dim : (i + 1) * dim] for i in range(3))
        )
        layers.append(
            LayerWeights(
                norm1=_norm(layer.norm1),
                qkv=linear(_in_proj(layer.self_attn), attn.in_proj_bias),
                out=_linear(attn.out_proj, linear),
                norm_cross=_norm(layer.norm_cross),
                cross_q=linear(q, bq),
                cross_k=linear(k, bk),
                cross_v=linear(v, bv),
                cross_out=_linear(cross.out_proj, linear),
                norm2=_norm(layer.norm2),
                up=_linear(layer.linear1, linear),
                down=_linear(layer.linear2, linear),
                activation=layer.activation,
            )
        )
    biases = [head.bias for head in lm.linears]
    first = lm.transformer.layers[0]
    rows = lm.emb[0].weight.shape[0]
    table = torch.cat([table.weight for table in lm.emb])
    return LMWeights(
        n_q=lm.n_q,
        card=lm.card,
        dim=lm.dim,
        num_heads=inside(first.self_attn).num_heads,
        table=table,
        row_offsets=(torch.arange(lm.n_q, device=table.device) * rows)[:, None],
        layers=layers,
        out_norm=_norm(lm.out_norm),
        heads=linear(
            torch.cat([head.weight for head in lm.linears]),
            None if biases[0] is None else torch.cat(biases),
        ),
        max_period=lm.transformer.max_period,
        positional_scale=lm.transformer.positional_scale,
        null_text_is_nothing=all(
            cross.in_proj_bias is None and _is_zero_of_zero(cross.out_proj, lm.dim)
            for cross in (inside(layer.cross_attention) for layer in lm.transformer.layers)
        ),
    )


def inside(attention: nn.Module) -> Any:
    """audiocraft's attention; of one that peft has wrapped for LoRA, what is in the wrapper."""
    return attention.get_base_layer() if hasattr(attention, "get_delta_weight") else attention


def _in_proj(attention: nn.Module) -> Tensor:
    """The matrix of queries, keys and values, with what LoRA adds to it."""
    weight = inside(attention).in_proj_weight
    if hasattr(attention, "get_delta_weight"):
        for adapter in attention.active_adapters:
            weight = weight + attention.get_delta_weight(adapter)
    return weight


def check_whole(lm: nn.Module) -> None:
    """Raise a StageLiteError if the LMModel's matrices are there in int8 only, for generation."""
    if any(p.is_meta for p in lm.transformer.layers[0].parameters()):
        raise StageLiteError(
            "this model holds its matrices in int8 only: it can generate, and nothing else. "
            "To train, inspect or save it: stage_lite.load(...) without dtype='int8'"
        )


def _is_zero_of_zero(module: nn.Module, dim: int) -> bool:
    if type(module) is nn.Linear:
        return module.bias is None
    with torch.no_grad():  # a wrapper: ask it
        return not bool(module(next(module.parameters()).new_zeros(1, dim)).any())


def _norm(module: nn.LayerNorm) -> Norm:
    return module.weight, module.bias, module.eps


def _linear(module: nn.Module, linear: Callable[[Tensor, Tensor | None], Any]) -> Any:
    return linear(module.weight, module.bias) if type(module) is nn.Linear else _Module(module)


def _check_supported(lm: nn.Module) -> None:
    transformer, fuser = lm.transformer, lm.fuser
    layer = transformer.layers[0]
    attn, cross = inside(layer.self_attn), inside(layer.cross_attention)
    unknown = {
        "post-norm layers": not layer.norm_first or lm.out_norm is None,
        "rotary positions": transformer.positional_embedding != "sin",
        "no cross-attention": cross is None,
        "attention of torch's own MultiheadAttention": not attn.custom,
        "attention that is not causal": not attn.causal,
        "a limited past": attn.past_context is not None,
        "repeated keys": attn.kv_repeat != 1,
        "normalised queries and keys": attn.qk_layer_norm or getattr(cross, "qk_layer_norm", False),
        "scaled layers": not isinstance(layer.layer_scale_1, nn.Identity),
        "conditions that are not cross-attended": any(
            v for k, v in fuser.fuse2cond.items() if k != "cross"
        ),
        "positions added to the text": fuser.cross_attention_pos_emb,
    }
    found = [what for what, there in unknown.items() if there]
    if found:
        raise StageLiteError(
            f"this LMModel has {', '.join(found)}: expected MusicGen's text-to-music geometry "
            "(norm first, causal, sinusoidal positions, text by cross-attention)"
        )
