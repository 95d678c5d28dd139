"""The language model one step at a time, for generation: few calls, nothing allocated twice.

At nano size a step is 150 small operations, and what they cost is mostly the calling. So a decoder
fixes all that does not change before the first step: the weights as plain tensors, keys and values
of the text, sines of the positions, the mask. The mathematics stay those of `lm.run_layers`.

Notebook: 03_language_model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.lm import (
    KVCache,
    Linear,
    embed,
    heads,
    run_layers,
    sin_positions,
    text_keys,
    weights_of,
)
from stage_lite.prefix import Prefix


class _CastLinear(Linear):
    """A matrix held in another type than the activations', such as bfloat16: half of the reading."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class _AddingLinear(Linear):
    """A matrix in the activations' type, which can add the residual in the same call."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight, bias)
        self.transposed = weight.t()

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        if self.bias is None and x.dim() == 2:
            return torch.addmm(residual, x, self.transposed)
        return residual + self(x)


def linear_for(weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Linear:
    """Choose how generation applies a matrix. The one place to teach a new kind of weights."""
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if dtype is None or dtype == weight.dtype:
        return _AddingLinear(weight, bias)
    return _CastLinear(weight.to(dtype), None if bias is None else bias.to(dtype))


class Decoder:
    """Runs an LMModel over the rows of a prefix: `prefill` what is known, then `step` by step.

    Args:
        lm: audiocraft's LMModel.
        prefix: all rows and steps, S in number; only mask and positions are read here.
        texts: projected description [L, dim] of each row, or None for the null text.
        dtype: of matrices and cache, the rest stays as it is; None: as the weights are.
    """

    @torch.inference_mode()
    def __init__(
        self,
        lm: nn.Module,
        prefix: Prefix,
        texts: Sequence[Tensor | None],
        dtype: torch.dtype | None = None,
    ):
        n_rows, _, n_steps = prefix.sequence.shape
        self.w = weights_of(lm, linear=lambda weight, bias: linear_for(weight, bias, dtype))
        self.cache = KVCache(lm, n_rows, n_steps, dtype)
        self.attention_mask = prefix.attention_mask
        self.positions = sin_positions(prefix.positions, self.w.dim, self.w.max_period)
        self.key_bias: Tensor | None = None  # [rows, 1, 1, S]: -inf for padded keys
        if not bool(prefix.attention_mask.all()):
            kept = prefix.attention_mask[:, None, None]
            dtype_ = self.cache.kv[0].dtype
            self.key_bias = torch.zeros(kept.shape, dtype=dtype_, device=kept.device)
            self.key_bias.masked_fill_(~kept, -torch.inf)
        self.text_keys, self.text_bias = self._text(texts)

    @torch.inference_mode()
    def prefill(self, sequence: Tensor) -> Tensor:
        """Run the first steps [rows, K, n] at once; logits [rows, K, card] after the last."""
        n_steps = sequence.shape[2]
        x = embed(self.w, sequence, self.positions[:, :n_steps])
        attend = self.cache.attend(n_steps, self.attention_mask[:, :n_steps])
        hidden = run_layers(self.w, x, attend, self._read_text(n_steps))
        self.cache.length = n_steps
        return heads(self.w, hidden[:, -1])

    @torch.inference_mode()
    def step(self, codes: Tensor) -> Tensor:
        """Run one more step [rows, K]; logits [rows, K, card] for the next."""
        w, cache = self.w, self.cache
        at = cache.length
        end = at + 1
        n_rows, heads_, head_dim = len(codes), w.num_heads, w.dim // w.num_heads
        bias = None if self.key_bias is None else self.key_bias[..., :end]
        kvs = cache.kv

        def attend(layer: int, qkv: Tensor) -> Tensor:
            new = qkv.view(n_rows, 3, heads_, 1, head_dim)
            kv = kvs[layer]
            kv.narrow(3, at, 1).copy_(new.narrow(1, 1, 2))
            k, v = kv.narrow(3, 0, end).unbind(1)
            q = new.select(1, 0)
            if q.dtype != k.dtype:
                q = q.to(k.dtype)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            return mixed.view(n_rows, -1).to(qkv.dtype)

        x = F.embedding_bag(codes + w.row_offsets[:, 0], w.table, mode="sum")
        x = torch.add(x, self.positions[:, at], alpha=w.positional_scale)  # [rows, dim]
        hidden = run_layers(w, x, attend, self._read_text(1, flat=True))
        cache.length = end
        return heads(w, hidden)

    def _text(self, texts: Sequence[Tensor | None]) -> tuple[Any, Tensor | None]:
        """Keys and values of every layer, rows padded to one length, and a bias that hides the padding.

        A row must not depend on how long its neighbours' texts are, so what pads it beyond its own
        length is hidden. (A text's own padding is attended to, as in audiocraft.)
        """
        w = self.w
        if all(text is None for text in texts):
            if w.null_text_is_nothing:
                return None, None
            texts = [w.table.new_zeros(1, w.dim) for _ in texts]
        lengths = {len(text) for text in texts if text is not None}
        padded = w.table.new_zeros(len(texts), max(lengths), w.dim)
        bias = w.table.new_zeros(len(texts), 1, 1, max(lengths))
        for row, text in enumerate(texts):
            if text is not None:
                padded[row, : len(text)] = text
                bias[row, ..., len(text) :] = -torch.inf
        return text_keys(w, padded), bias if len(lengths) > 1 else None

    def _read_text(
        self, n_steps: int, flat: bool = False
    ) -> Callable[[int, Tensor], Tensor] | None:
        if self.text_keys is None:
            return None
        keys, bias, n_heads = self.text_keys, self.text_bias, self.w.num_heads

        def read_text(layer: int, q: Tensor) -> Tensor:
            k, v = keys[layer]
            n_rows, dim = len(k), q.shape[-1]
            q = q.view(n_rows, n_steps, n_heads, -1).transpose(1, 2)  # [rows, H, n, dim / H]
            scores = q @ k.transpose(-1, -2)
            if bias is not None:
                scores = scores + bias
            mixed = (scores.softmax(-1) @ v).transpose(1, 2)
            return mixed.reshape(n_rows, dim) if flat else mixed.reshape(n_rows, n_steps, dim)

        return read_text
