"""The language model one step at a time, for generation: few calls, nothing allocated twice.

At nano size a step is 150 small operations, and what they cost is mostly the calling. So a decoder
fixes all that does not change before the first step: the weights as plain tensors, keys and values
of the text, sines of the positions, the mask. The mathematics stay those of `lm.run_layers`.

Notebook: 02_language_model.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.lm import (
    KVCache,
    LayerWeights,
    Linear,
    LMWeights,
    embed,
    heads,
    join_heads,
    run_layers,
    sin_positions,
    split_qkv,
    text_attention,
    text_keys,
    weights_of,
)
from stage_lite.prefix import Prefix


class _CastLinear(Linear):
    """A matrix in another type than the activations', such as bfloat16: half of the reading."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class _AddingLinear(Linear):
    """A matrix in the activations' type, which can add the residual in the same call."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight, bias)
        self.transposed = weight.t()

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is not None or x.dim() != 2:
            return super().__call__(x)
        if _few(x):
            return torch.mm(self.weight, x.t()).t().contiguous()
        return torch.mm(x, self.transposed)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        if self.bias is not None or x.dim() != 2:
            return super().add_to(residual, x)
        if _few(x):
            return torch.addmm(residual.t(), self.weight, x.t()).t().contiguous()
        return torch.addmm(residual, x, self.transposed)


def _few(x: Tensor) -> bool:
    """Whether the matrix should stand on the left: with 2 to 8 rows on a CPU it is then read 1.2 to
    3.3 times as fast (dev/LOG.md)."""
    return 2 <= x.shape[0] <= 8 and x.device.type == "cpu"


def linear_for(weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Linear:
    """Choose how generation applies a matrix. The one place to teach a new kind of weights."""
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if dtype is None or dtype == weight.dtype:
        return _AddingLinear(weight, bias)
    return _CastLinear(weight.to(dtype), None if bias is None else bias.to(dtype))


_SMALL = 1 << 20  # elements of a matrix up to which calls cost more than reading


def _gelu(x: Tensor) -> Tensor:
    """F.gelu, which on two rows spends most of its time in looking its kernel up."""
    return torch.addcmul(x, x, (x * math.sqrt(0.5)).erf_()).mul_(0.5)


def _scaled_gelu(x: Tensor) -> Tensor:
    """sqrt(2) gelu(sqrt(2) x): the constants are in the matrices before and behind."""
    return torch.addcmul(x, x, torch.erf(x))


def _quicken_gelu(layer: LayerWeights) -> None:
    """Replace F.gelu between two small matrices by what computes the same in fewer calls."""
    if layer.activation is not F.gelu:
        return
    layer.activation = _gelu
    up, down = layer.up, layer.down
    if type(up) is type(down) is _AddingLinear and up.weight.numel() <= _SMALL:
        half = math.sqrt(0.5)
        layer.up = _AddingLinear(up.weight * half, None if up.bias is None else up.bias * half)
        layer.down = _AddingLinear(down.weight * half, down.bias)
        layer.activation = _scaled_gelu


class Decoder:
    """Runs an LMModel over the rows of a prefix: `prefill` what is known, then `step` by step.

    Args:
        lm: audiocraft's LMModel.
        prefix: all rows and steps, S in number; only mask (padding on the left) and positions are
            read here.
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
        for layer in self.w.layers:
            _quicken_gelu(layer)
        self.cache = KVCache(lm, n_rows, n_steps, dtype)
        self.positions = sin_positions(prefix.positions, self.w.dim, self.w.max_period)
        # Neighbouring rows with the same padding attend together, and padding is cut off instead of
        # masked: the unconditional rows of guidance have a context's length less to look at.
        pads = (~prefix.attention_mask).sum(1).tolist()
        starts = [r for r in range(n_rows) if r == 0 or pads[r] != pads[r - 1]]
        self.groups = [
            (start, end, pads[start])
            for start, end in zip(starts, [*starts[1:], n_rows], strict=True)
        ]
        # keys and values of each group in each layer, without the padding
        self.keys_of = [
            [(kv[s:e, 0, :, pad:], kv[s:e, 1, :, pad:]) for s, e, pad in self.groups]
            for kv in self.cache.kv
        ]
        self.text = _Text(self.w, texts)
        self.read_text = self.text.reader(0, n_rows)

    @torch.inference_mode()
    def prefill(self, sequence: Tensor) -> Tensor:
        """Run the first steps [rows, K, n] at once; logits [rows, K, card] after the last."""
        n_steps, last = sequence.shape[2], []
        for start, end, pad in self.groups:
            steps = slice(pad, n_steps)
            x = embed(self.w, sequence[start:end, :, steps], self.positions[start:end, steps])

            def attend(layer: int, qkv: Tensor, rows=slice(start, end), steps=steps) -> Tensor:
                q, k, v = split_qkv(qkv, self.w.num_heads)
                kv = self.cache.kv[layer][rows]
                kv[:, 0, :, steps], kv[:, 1, :, steps] = k, v
                return join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))

            last.append(run_layers(self.w, x, attend, self.text.reader(start, end))[:, -1])
        self.cache.length = n_steps
        return heads(self.w, torch.cat(last))

    @torch.inference_mode()
    def step(self, codes: Tensor) -> Tensor:
        """Run one more step [rows, K]; logits [rows, K, card] for the next."""
        w, kvs, at = self.w, self.cache.kv, self.cache.length
        n_rows = codes.shape[0]
        shape = (n_rows, 3, w.num_heads, 1, w.dim // w.num_heads)
        spans = [(start, end - start, at + 1 - pad) for start, end, pad in self.groups]
        n_keys = at + 1 - self.groups[0][2] if len(spans) == 1 else None
        sdpa, cast = F.scaled_dot_product_attention, kvs[0].dtype != self.positions.dtype

        def attend(layer: int, qkv: Tensor) -> Tensor:
            if cast:
                return attend_to(layer, qkv.to(kvs[0].dtype)).to(qkv.dtype)
            return attend_to(layer, qkv)

        def attend_to(layer: int, qkv: Tensor) -> Tensor:
            new = qkv.view(shape)
            kvs[layer].narrow(3, at, 1).copy_(new.narrow(1, 1, 2))
            q = new.select(1, 0)  # [rows, H, 1, dim / H]
            if n_keys is not None:
                k, v = self.keys_of[layer][0]
                return sdpa(q, k.narrow(2, 0, n_keys), v.narrow(2, 0, n_keys)).view(n_rows, w.dim)
            parts = [
                sdpa(q.narrow(0, start, n), k.narrow(2, 0, length), v.narrow(2, 0, length))
                for (start, n, length), (k, v) in zip(spans, self.keys_of[layer], strict=True)
            ]
            return torch.cat(parts).view(n_rows, w.dim)

        x = F.embedding(codes + w.row_offsets[:, 0], w.table).sum(1)
        x = torch.add(x, self.positions[:, at], alpha=w.positional_scale)  # [rows, dim]
        hidden = run_layers(w, x, attend_to if not cast else attend, self.read_text)
        self.cache.length = at + 1
        return heads(w, hidden)


class _Text:
    """The descriptions of all rows, ready to be read by any of them in every layer.

    A row must not depend on how long its neighbours' texts are, so what pads it beyond its own
    length is hidden. (A text's own padding is attended to, as in audiocraft.)
    """

    def __init__(self, w: LMWeights, texts: Sequence[Tensor | None]):
        if not w.null_text_is_nothing:  # zeros do something: every row must read them
            texts = [w.table.new_zeros(1, w.dim) if text is None else text for text in texts]
        self.w = w
        # Null rows at the end (the unconditional ones) are left out; others read zeros.
        self.n_rows = max(
            (row + 1 for row, text in enumerate(texts) if text is not None), default=0
        )
        if not self.n_rows:
            return
        lengths = {len(text) for text in texts if text is not None}
        longest = max(lengths)
        padded = w.table.new_zeros(self.n_rows, longest, w.dim)
        bias = w.table.new_zeros(self.n_rows, 1, 1, longest)
        for row, text in enumerate(texts):
            if text is not None:
                padded[row, : len(text)] = text
                bias[row, ..., len(text) :] = -torch.inf
        self.keys = text_keys(w, padded)
        self.bias = bias if len(lengths) > 1 else None
        # The text is fixed while queries come and go: query matrix times keys, and values times
        # output matrix, become two thin matrices per row. Worth it while they are small.
        self.folded = w.null_text_is_nothing and self.n_rows * longest * w.num_heads <= w.dim
        if self.folded:
            self.pairs = [self._fold(*pair) for pair in zip(w.layers, self.keys, strict=True)]

    def _fold(self, layer: LayerWeights, keys: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.w.dim, dtype=keys[0].dtype, device=keys[0].device)
        per_head = (self.w.num_heads, -1)
        query = layer.cross_q(eye).unflatten(1, per_head)  # [dim, H, dim / H]
        output = layer.cross_out(eye).unflatten(0, per_head)  # [H, dim / H, dim]
        into = torch.einsum("ihd,bhld->bihl", query, keys[0]).flatten(2)  # [rows, dim, H * L]
        out_of = torch.einsum("bhld,hdo->bhlo", keys[1], output).flatten(1, 2)  # [rows, H * L, dim]
        return into.contiguous(), out_of.contiguous()

    def reader(self, start: int, end: int) -> Callable[[int, Tensor, Tensor], Tensor] | None:
        """`read_text` of rows start to end over x [rows, (n,) dim]; None where texts are null."""
        w, n_rows = self.w, min(end, self.n_rows) - start
        if n_rows <= 0:
            return None
        bias = None if self.bias is None else self.bias[start:end]
        if self.folded:
            return self._folded_reader(slice(start, start + n_rows), n_rows, bias)
        keys = [(k[start:end], v[start:end]) for k, v in self.keys]
        read = text_attention(w, keys, bias)

        def read_text(layer: int, x: Tensor, normed: Tensor) -> Tensor:
            mine = x[:n_rows].view(n_rows, -1, w.dim)
            mine.copy_(read(layer, mine, normed[:n_rows].view(n_rows, -1, w.dim)))
            return x

        return read_text

    def _folded_reader(
        self, rows: slice, n_rows: int, bias: Tensor | None
    ) -> Callable[[int, Tensor, Tensor], Tensor]:
        dim, pairs = self.w.dim, [(into[rows], out_of[rows]) for into, out_of in self.pairs]
        lead, product, add_product = (n_rows, -1), torch.bmm, Tensor.baddbmm_
        if n_rows == 1:  # plain matrices are quicker than batches of one
            lead, product, add_product = (-1,), torch.mm, Tensor.addmm_
            pairs = [(into[0], out_of[0]) for into, out_of in pairs]
            bias = None if bias is None else bias[0]
        per_head = (*lead, self.w.num_heads, self.keys[0][0].shape[2])
        joined = (*lead, pairs[0][0].shape[-1])
        flat = (*lead, dim)

        def read_text(layer: int, x: Tensor, normed: Tensor) -> Tensor:
            into, out_of = pairs[layer]
            scores = product(normed.narrow(0, 0, n_rows).view(flat), into).view(per_head)
            if bias is not None:
                scores = scores + bias
            weights = scores.softmax(-1).view(joined)  # [(rows,) n, H * L]
            # x is this layer's own, so what the rows with a text hear may be added in place
            add_product(x.narrow(0, 0, n_rows).view(flat), weights, out_of)
            return x

        return read_text
