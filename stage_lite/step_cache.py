"""Keys and values of the steps so far, as a `Decoder` holds and reads them: exact, or as bytes.

Attention reads the whole cache at every step. Of MusicGen-small with 20 s behind it that is 0.2 GB
for each row in fp32, more than half of what its int8 matrices weigh. `ByteCache` holds a quarter:
each step's keys and values become 8-bit numbers, per head, with a scale and a smallest value.

They are never turned back as a whole. A score is a sum over a head's width of query times key, a
mixed value one over steps of weight times value: both are weighted sums of rows, which is what
`quantized.embedding_bag_byte_rowwise_offsets` computes of a table of bytes (torch's builds for x86
bring fbgemm's kernels for it). So values lie step by step, keys in blocks of `BLOCK` steps, one row
for each place in the head's width:

    values  [rows, H, S, width + 8]                  a row is a step, and its scale and minimum
    keys    [rows, H, S / BLOCK, width, BLOCK + 8]   a row is a place, its scale 1 and minimum 0;
                                                     scale and minimum of each step stand aside

Source: Liu et al. 2024 (KIVI: keys and values of few bits), arXiv:2402.02750.
Notebook: 02_language_model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from stage_lite.matrices import has_dynamic_int8

BLOCK = 128  # steps; longer rows are quicker to sum, and half a block is read in vain
_TAIL = 8  # bytes behind a row: its scale and its minimum, fp32


def neighbours(pads: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first row, how many, their padding) of neighbouring rows with the same padding."""
    starts = [row for row in range(len(pads)) if row == 0 or pads[row] != pads[row - 1]]
    ends = [*starts[1:], len(pads)]
    return [(start, end - start, pads[start]) for start, end in zip(starts, ends, strict=True)]


class ExactCache:
    """Keys and values as they are, and torch's own attention.

    Args:
        n_layers, num_heads, n_steps, width: sizes; width is that of a head.
        pads: how many steps on the left of each row are padding, which takes no memory here.
        like: gives type and device.
    """

    @staticmethod
    def bytes_of(
        n_layers: int, pads: Sequence[int], num_heads: int, n_steps: int, width: int, itemsize: int
    ) -> int:
        """Memory of a cache of these sizes, before there is one."""
        steps = sum(n_steps - pad for pad in pads)
        return 2 * n_layers * steps * num_heads * width * itemsize

    def __init__(
        self,
        n_layers: int,
        pads: Sequence[int],
        num_heads: int,
        n_steps: int,
        width: int,
        like: Tensor,
    ):
        self.parts = neighbours(pads)
        # Per part of the rows; keys and values side by side, so that a step writes both in one call
        self.kv = [
            [like.new_zeros(n, 2, num_heads, n_steps - pad, width) for _ in range(n_layers)]
            for _, n, pad in self.parts
        ]
        self.counts = [torch.arange(n_steps - pad, device=like.device) for *_, pad in self.parts]

    @property
    def nbytes(self) -> int:
        return sum(kv.nbytes for part in self.kv for kv in part)

    def fill(self, layer: int, part: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the first steps [rows, H, n, width] behind the padding of a part of the rows (see
        `neighbours`); return them as later steps will see them."""
        kv, n = self.kv[part][layer], k.shape[2]
        kv[:, 0, :, :n], kv[:, 1, :, :n] = k, v
        return k, v

    def attend(self, layer: int, new: Tensor, at: int) -> Tensor:
        """Write step `at` of queries, keys, values [rows, 3, H, 1, width] and mix what is there.

        `at` counts the padding. Returns [rows, H, 1, width].
        """
        mixed = []
        for (start, n_rows, pad), kv in zip(self.parts, self.kv, strict=True):
            mine = new.narrow(0, start, n_rows)
            there = kv[layer].narrow(3, 0, at - pad + 1)
            there.narrow(3, at - pad, 1).copy_(mine.narrow(1, 1, 2))
            q, k, v = mine.select(1, 0), there.select(1, 0), there.select(1, 1)
            mixed.append(F.scaled_dot_product_attention(q, k, v))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def there(self, at: Tensor) -> list[Tensor]:
        """For `attend_anywhere`: marks the steps up to `at` [1], in each part of the rows."""
        return [
            (count <= at - pad)[None, None, None]
            for (*_, pad), count in zip(self.parts, self.counts, strict=True)
        ]

    def attend_anywhere(self, layer: int, new: Tensor, at: Tensor, there: list[Tensor]) -> Tensor:
        """`attend` by the same calls wherever `at` [1] is; `there` is what `there(at)` says."""
        mixed = []
        for (start, n_rows, pad), kv, mask in zip(self.parts, self.kv, there, strict=True):
            mine = new[start : start + n_rows]
            kv[layer].index_copy_(3, at - pad, mine[:, 1:].contiguous())
            k, v = kv[layer].unbind(1)
            mixed.append(F.scaled_dot_product_attention(mine[:, 0], k, v, attn_mask=mask))
        return torch.cat(mixed)


class ByteCache:
    """Keys and values in 8 bits, per head and step on a scale of their own. For CPUs.

    All rows are written and summed in the same calls, whatever their padding, which is not read.

    Args:
        n_layers, num_heads, n_steps, width: sizes; width, that of a head, in fours.
        pads: how many steps on the left of each row are padding.
    """

    @staticmethod
    def bytes_of(
        n_layers: int, pads: Sequence[int], num_heads: int, n_steps: int, width: int
    ) -> int:
        """Memory of a cache of these sizes, before there is one."""
        blocks = -(-n_steps // BLOCK)
        keys = blocks * (width * (BLOCK + _TAIL) + BLOCK * 8)
        return n_layers * len(pads) * num_heads * (keys + n_steps * (width + _TAIL))

    @staticmethod
    def possible(width: int, device: torch.device) -> bool:
        """Whether this torch can, on this device, for heads of this width."""
        names = ("prepack", "unpack", "rowwise_offsets")
        there = all(hasattr(torch.ops.quantized, f"embedding_bag_byte_{name}") for name in names)
        return device.type == "cpu" and width % 4 == 0 and has_dynamic_int8() and there

    def __init__(
        self, n_layers: int, pads: Sequence[int], num_heads: int, n_steps: int, width: int
    ):
        self.parts = neighbours(pads)
        self.n_rows, self.num_heads, self.n_steps, self.width = (
            len(pads),
            num_heads,
            n_steps,
            width,
        )
        n_blocks = -(-n_steps // BLOCK)
        heads = (self.n_rows, num_heads)
        plain = torch.zeros(BLOCK + _TAIL, dtype=torch.uint8)
        plain[BLOCK : BLOCK + 4] = torch.ones(1).view(torch.uint8)  # scale 1, minimum 0
        self.keys = [plain.repeat(*heads, n_blocks, width, 1) for _ in range(n_layers)]
        self.values = [
            torch.zeros(*heads, n_steps, width + _TAIL, dtype=torch.uint8) for _ in range(n_layers)
        ]
        # scale and minimum of each step's keys
        self.ranges = [torch.zeros(2, *heads, n_blocks * BLOCK) for _ in range(n_layers)]
        self.key_rows = _counted(*heads, n_blocks, width)
        self.value_rows = _counted(*heads, n_steps)
        self.plan = _Plan(0)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.keys, *self.values, *self.ranges))

    def fill(self, layer: int, part: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the first steps [rows, H, n, width] behind the padding of a part of the rows (see
        `neighbours`); return them as later steps will see them."""
        start, n_rows, pad = self.parts[part]
        shape, rows, end = k.shape, slice(start, start + n_rows), pad + k.shape[2]
        packed, values = (_pack(x.reshape(-1, self.width)) for x in (k, v))
        seen = [
            torch.ops.quantized.embedding_bag_byte_unpack(x).view(shape) for x in (packed, values)
        ]
        self.values[layer][rows, :, pad:end] = values.view(*shape[:3], -1)
        packed = packed.view(*shape[:3], -1)
        bytes_ = packed[..., : self.width].transpose(-1, -2)  # [rows, H, width, n]
        for block in range(pad // BLOCK, -(-end // BLOCK)):
            first, last = max(pad, block * BLOCK), min(end, (block + 1) * BLOCK)
            places = slice(first - block * BLOCK, last - block * BLOCK)
            self.keys[layer][rows, :, block, :, places] = bytes_[..., first - pad : last - pad]
        self.ranges[layer][:, rows, :, pad:end] = _ranges(packed, self.width).movedim(-1, 0)
        return seen[0], seen[1]

    def attend(self, layer: int, new: Tensor, at: int) -> Tensor:
        """Write step `at` of queries, keys, values [rows, 3, H, 1, width] and mix what is there.

        `at` counts the padding. Returns [rows, H, width].
        """
        key, value = self._packed(new)  # [rows, H, width + 8]
        block, place = divmod(at, BLOCK)
        self.keys[layer].select(2, block).select(3, place).copy_(key.narrow(2, 0, self.width))
        self.values[layer].select(2, at).copy_(value)
        self.ranges[layer].select(3, at).copy_(_ranges(key, self.width).permute(2, 0, 1))
        return self._mix(layer, new.select(1, 0), at + 1)

    def there(self, at: Tensor) -> Tensor:
        """For `attend_anywhere`: marks the steps [S] up to `at` [1]."""
        return torch.arange(self.n_steps, device=at.device) <= at

    def attend_anywhere(self, layer: int, new: Tensor, at: Tensor, there: Tensor) -> Tensor:
        """`attend` by the same calls wherever `at` [1] is; `there` is what `there(at)` says."""
        key, value = self._packed(new)
        places = self.keys[layer][..., :BLOCK].transpose(3, 4)  # [rows, H, blocks, BLOCK, width]
        places[:, :, at // BLOCK, at % BLOCK] = key[:, :, None, : self.width]
        self.values[layer].index_copy_(2, at, value.unsqueeze(2))
        self.ranges[layer].index_copy_(3, at, _ranges(key, self.width).movedim(-1, 0)[..., None])
        return self._mix(layer, new[:, 0], self.n_steps, there)

    def _packed(self, new: Tensor) -> tuple[Tensor, ...]:
        pairs = new.narrow(1, 1, 2).reshape(-1, self.width)
        return _pack(pairs).view(self.n_rows, 2, self.num_heads, -1).unbind(1)

    def _mix(self, layer: int, q: Tensor, n: int, there: Tensor | None = None) -> Tensor:
        """Values [rows, H, width] of the first n steps, weighted by what q [rows, H, 1, width]
        finds in their keys."""
        if self.plan.n != n:
            self.plan = self._plan(n)
        plan, ranges = self.plan, self.ranges[layer]
        q = (q * self.width**-0.5).view(-1, self.width)  # [rows * H, width]
        spread = q.index_select(0, plan.queries).view(-1)  # a query for each block of keys
        products = _sums(self.keys[layer], plan.key_rows, plan.key_starts, spread)  # no scales yet
        loudness = q.sum(-1).view(self.n_rows, self.num_heads, 1)
        weights = []
        for start, n_rows, first, n_steps, bags, blocks in plan.parts:
            mine = products.narrow(0, *bags).view(n_rows, self.num_heads, -1)
            scales, minima = ranges.narrow(1, start, n_rows).narrow(3, first, n_steps).unbind(0)
            scores = minima * loudness.narrow(0, start, n_rows)
            scores.addcmul_(mine.narrow(2, first - blocks, n_steps), scales)
            if there is not None:
                scores.masked_fill_(~there[first:n], -torch.inf)
            weights.append(scores.softmax(-1).view(-1))
        weights = weights[0] if len(weights) == 1 else torch.cat(weights)
        mixed = _sums(self.values[layer], plan.value_rows, plan.value_starts, weights)
        return mixed.view(self.n_rows, self.num_heads, self.width)

    def _plan(self, n: int) -> _Plan:
        """Which rows of the tables are summed for the first n steps: the same in all layers."""
        plan, end, bags = _Plan(n), -(-n // BLOCK), 0
        key_rows, value_rows, queries, lengths = [], [], [], []
        for start, n_rows, pad in self.parts:
            rows, first = slice(start, start + n_rows), pad // BLOCK
            n_heads = n_rows * self.num_heads
            n_bags = n_heads * (end - first)
            key_rows.append(self.key_rows[rows, :, first:end].reshape(-1))
            value_rows.append(self.value_rows[rows, :, pad:n].reshape(-1))
            heads = torch.arange(n_heads) + start * self.num_heads
            queries.append(heads.repeat_interleave(end - first))
            lengths.append(torch.full((n_heads,), n - pad, dtype=torch.int32))
            plan.parts.append((start, n_rows, pad, n - pad, (bags, n_bags), first * BLOCK))
            bags += n_bags
        plan.key_rows, plan.value_rows = torch.cat(key_rows), torch.cat(value_rows)
        plan.key_starts = torch.arange(bags, dtype=torch.int32) * self.width
        lengths = torch.cat(lengths)
        plan.value_starts = (lengths.cumsum(0) - lengths).int()
        plan.queries = torch.cat(queries)
        return plan


@dataclass
class _Plan:
    """What is summed for the first n steps. A bag is a block of one head's keys."""

    n: int
    parts: list[tuple] = field(default_factory=list)  # see ByteCache._plan
    key_rows: Tensor | None = None
    key_starts: Tensor | None = None
    value_rows: Tensor | None = None
    value_starts: Tensor | None = None
    queries: Tensor | None = None  # whose keys each bag holds


def _counted(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.int32).view(shape)


def _pack(x: Tensor) -> Tensor:
    """fp32 [n, width] -> uint8 [n, width + 8]: 256 levels from the smallest to the largest."""
    return torch.ops.quantized.embedding_bag_byte_prepack(x)


def _ranges(packed: Tensor, width: int) -> Tensor:
    """Scale and minimum [..., 2] that stand behind each packed row."""
    return packed.narrow(-1, width, _TAIL).view(torch.float32)


def _sums(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of a packed table's rows, one for each of `starts`: [bags, length of a row]."""
    return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        table.view(-1, table.shape[-1]), rows, starts, False, 0, False, weights, None, False
    )
