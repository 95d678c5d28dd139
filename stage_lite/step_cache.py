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

import torch
import torch.nn.functional as F
from torch import Tensor

from stage_lite.matrices import has_dynamic_int8

BLOCK = 128  # steps; longer rows are quicker to sum, and half a block is read in vain
_TAIL = 8  # bytes behind a row: its scale and its minimum, fp32


class ExactCache:
    """Keys and values as they are, and torch's own attention.

    Args:
        n_layers, n_rows, num_heads, n_steps, width: sizes; width is that of a head.
        like: gives type and device.
    """

    @staticmethod
    def bytes_of(
        n_layers: int, n_rows: int, num_heads: int, n_steps: int, width: int, itemsize: int
    ) -> int:
        """Memory of a cache of these sizes, before there is one."""
        return 2 * n_layers * n_rows * num_heads * n_steps * width * itemsize

    def __init__(
        self, n_layers: int, n_rows: int, num_heads: int, n_steps: int, width: int, like: Tensor
    ):
        # keys and values side by side: a step writes both in one call
        self.kv = [like.new_zeros(n_rows, 2, num_heads, n_steps, width) for _ in range(n_layers)]
        self.keys = [(kv.select(1, 0), kv.select(1, 1)) for kv in self.kv]
        self.n_steps = n_steps

    @property
    def nbytes(self) -> int:
        return sum(kv.nbytes for kv in self.kv)

    def fill(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the first steps [rows, H, n, width]; return them as later steps will see them."""
        kv, n = self.kv[layer], k.shape[2]
        kv[:, 0, :, :n], kv[:, 1, :, :n] = k, v
        return k, v

    def attend(self, layer: int, new: Tensor, at: int) -> Tensor:
        """Write step `at` of queries, keys, values [rows, 3, H, 1, width] and mix what is there.

        Returns [rows, H, 1, width].
        """
        self.kv[layer].narrow(3, at, 1).copy_(new.narrow(1, 1, 2))
        k, v = self.keys[layer]
        q, n = new.select(1, 0), at + 1
        return F.scaled_dot_product_attention(q, k.narrow(2, 0, n), v.narrow(2, 0, n))

    def attend_anywhere(self, layer: int, new: Tensor, at: Tensor, there: Tensor) -> Tensor:
        """`attend` by the same calls wherever `at` [1] is; `there` [S] marks the steps up to it."""
        self.kv[layer].index_copy_(3, at, new[:, 1:].contiguous())
        k, v = self.keys[layer]
        return F.scaled_dot_product_attention(new[:, 0], k, v, attn_mask=there[None, None, None])


class ByteCache:
    """Keys and values in 8 bits, per head and step on a scale of their own. For CPUs.

    Args:
        n_layers, n_rows, num_heads, n_steps, width: sizes; width, that of a head, in fours.
    """

    @staticmethod
    def bytes_of(n_layers: int, n_rows: int, num_heads: int, n_steps: int, width: int) -> int:
        """Memory of a cache of these sizes, before there is one."""
        blocks = -(-n_steps // BLOCK)
        keys = blocks * (width * (BLOCK + _TAIL) + BLOCK * 8)
        return n_layers * n_rows * num_heads * (keys + n_steps * (width + _TAIL))

    @staticmethod
    def possible(width: int, device: torch.device) -> bool:
        """Whether this torch can, on this device, for heads of this width."""
        names = ("prepack", "unpack", "rowwise_offsets")
        there = all(hasattr(torch.ops.quantized, f"embedding_bag_byte_{name}") for name in names)
        return device.type == "cpu" and width % 4 == 0 and has_dynamic_int8() and there

    def __init__(self, n_layers: int, n_rows: int, num_heads: int, n_steps: int, width: int):
        self.n_rows, self.num_heads, self.n_steps, self.width = n_rows, num_heads, n_steps, width
        self.n_blocks = -(-n_steps // BLOCK)
        heads = (n_rows, num_heads)
        plain = torch.zeros(BLOCK + _TAIL, dtype=torch.uint8)
        plain[BLOCK : BLOCK + 4] = torch.ones(1).view(torch.uint8)  # scale 1, minimum 0
        self.keys = [plain.repeat(*heads, self.n_blocks, width, 1) for _ in range(n_layers)]
        self.values = [
            torch.zeros(*heads, n_steps, width + _TAIL, dtype=torch.uint8) for _ in range(n_layers)
        ]
        # scale and minimum of each step's keys
        self.ranges = [torch.zeros(2, *heads, self.n_blocks * BLOCK) for _ in range(n_layers)]
        n = n_rows * num_heads
        self.key_rows = torch.arange(n * self.n_blocks * width, dtype=torch.int32).view(
            n, self.n_blocks, width
        )
        self.value_rows = torch.arange(n * n_steps, dtype=torch.int32).view(n, n_steps)
        self.plan: tuple[int, ...] = (0,)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.keys, *self.values, *self.ranges))

    def fill(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the first steps [rows, H, n, width]; return them as later steps will see them."""
        shape, n = k.shape, k.shape[2]
        packed, values = (_pack(x.reshape(-1, self.width)) for x in (k, v))
        seen = [
            torch.ops.quantized.embedding_bag_byte_unpack(x).view(shape) for x in (packed, values)
        ]
        self.values[layer][:, :, :n] = values.view(*shape[:3], -1)
        packed = packed.view(*shape[:3], -1)
        for block, part in enumerate(packed.split(BLOCK, dim=2)):
            steps = part.shape[2]
            self.keys[layer][:, :, block, :, :steps] = part[..., : self.width].transpose(-1, -2)
        self.ranges[layer][..., :n] = _ranges(packed, self.width).movedim(-1, 0)
        return seen[0], seen[1]

    def attend(self, layer: int, new: Tensor, at: int) -> Tensor:
        """Write step `at` of queries, keys, values [rows, 3, H, 1, width] and mix what is there.

        Returns [rows, H, width].
        """
        key, value = self._packed(new)  # [rows, H, width + 8]
        block, place = divmod(at, BLOCK)
        self.keys[layer].select(2, block).select(3, place).copy_(key.narrow(2, 0, self.width))
        self.values[layer].select(2, at).copy_(value)
        self.ranges[layer].select(3, at).copy_(_ranges(key, self.width).permute(2, 0, 1))
        return self._mix(layer, new.select(1, 0), at + 1)

    def attend_anywhere(self, layer: int, new: Tensor, at: Tensor, there: Tensor) -> Tensor:
        """`attend` by the same calls wherever `at` [1] is; `there` [S] marks the steps up to it."""
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
        if self.plan[0] != n:
            self.plan = self._plan(n)
        _, blocks, key_rows, key_starts, value_rows, value_starts = self.plan
        q = q.squeeze(2) * self.width**-0.5
        weights = q.unsqueeze(2).expand(-1, -1, blocks, -1).reshape(-1)
        products = _sums(self.keys[layer], key_rows, key_starts, weights)  # without scales
        products = products.view(self.n_rows, self.num_heads, -1).narrow(2, 0, n)
        scales, minima = self.ranges[layer].narrow(3, 0, n).unbind(0)
        scores = torch.addcmul(minima * q.sum(-1, keepdim=True), products, scales)
        if there is not None:
            scores = scores.masked_fill_(~there, -torch.inf)
        weights = scores.softmax(-1).view(-1)
        mixed = _sums(self.values[layer], value_rows, value_starts, weights)
        return mixed.view(self.n_rows, self.num_heads, self.width)

    def _plan(self, n: int) -> tuple:
        """Which rows of the tables are summed for the first n steps: the same in all layers."""
        heads, blocks = self.n_rows * self.num_heads, -(-n // BLOCK)
        key_starts = torch.arange(heads * blocks, dtype=torch.int32) * self.width
        value_starts = torch.arange(heads, dtype=torch.int32) * n
        key_rows = self.key_rows[:, :blocks].reshape(-1).contiguous()
        value_rows = self.value_rows[:, :n].reshape(-1).contiguous()  # of one step it is a view
        return n, blocks, key_rows, key_starts, value_rows, value_starts


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
