"""The language model one step at a time, for generation: few calls, nothing allocated twice.

At nano size a step is 150 small operations, and what they cost is mostly the calling; at
MusicGen's it is the reading of the weights. So a decoder fixes all that does not change before the
first step: the weights as plain tensors (`held_weights`), keys and values of the text, sines of the
positions, a cache without padding. The mathematics stay those of `lm.run_layers`.

A step costs what its matrices weigh plus one reading of the cache (`step_cache`); nothing else
grows with length.

Notebook: 02_language_model.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.context_encoder import hear_context
from stage_lite.held_weights import check_weights, held_weights
from stage_lite.lm import (
    embed,
    heads,
    join_heads,
    run_layers,
    sin_positions,
    split_qkv,
    text_attention,
    text_keys,
)
from stage_lite.lm_weights import LayerWeights, Linear, LMWeights
from stage_lite.memory import check_cache_memory
from stage_lite.prefix import Prefix
from stage_lite.step_cache import ByteCache, ExactCache


class Decoder:
    """Runs an LMModel over the rows of a prefix: `prefill` what is known, then `step` by step.

    Args:
        lm: audiocraft's LMModel.
        prefix: all rows and steps, S in number; only mask (padding on the left) and positions are
            read here.
        texts: projected description [L, dim] of each row, or None for the null text.
        weights: "fp32", "bf16", "int8"; None: as the model is (see `held_weights`).
        graph: every step does the same calls on the same memory, whatever its position; on a GPU it
            is recorded once as a CUDA graph and replayed, which spares the calling. Not timed.
        cache: "exact" or "bytes" (see `step_cache`); None: exact for "fp32" and on a GPU, else
            bytes where torch has the kernels.
    """

    @torch.inference_mode()
    def __init__(
        self,
        lm: nn.Module,
        prefix: Prefix,
        texts: Sequence[Tensor | None],
        weights: str | None = None,
        graph: bool = False,
        cache: str | None = None,
    ):
        n_rows, _, n_steps = prefix.sequence.shape
        self.lm, self.w = lm, held_weights(lm, weights)
        w, like = self.w, self.w.table
        self.positions = sin_positions(prefix.positions, w.dim, w.max_period).to(like.dtype)
        # Neighbouring rows with the same padding attend together, and padding is cut off instead of
        # masked: the unconditional rows of guidance have a context's length less to look at.
        pads = (~prefix.attention_mask).sum(1).tolist()
        starts = [r for r in range(n_rows) if r == 0 or pads[r] != pads[r - 1]]
        ends = [*starts[1:], n_rows]
        self.groups = [
            _Group(start, end, pads[start]) for start, end in zip(starts, ends, strict=True)
        ]
        self._make_caches(cache, check_weights(lm, weights), n_rows, n_steps)
        self.length = 0  # steps that are in the cache
        self.text = _Text(w, texts)
        self.read_text = self.text.reader(0, n_rows)
        self.fixed = _FixedStep(self, n_rows) if graph else None

    def _make_caches(self, cache: str | None, weights: str, n_rows: int, n_steps: int) -> None:
        w, like = self.w, self.w.table
        width = w.dim // w.num_heads
        if cache is None:
            rounded = weights in ("bf16", "int8") and ByteCache.possible(width, like.device)
            cache = "bytes" if rounded else "exact"
        sizes = [
            (len(w.layers), group.end - group.start, w.num_heads, n_steps - group.pad, width)
            for group in self.groups
        ]
        if cache == "exact":
            needed = sum(ExactCache.bytes_of(*size, like.element_size()) for size in sizes)
        else:
            needed = sum(ByteCache.bytes_of(*size) for size in sizes)
        check_cache_memory(needed, n_rows, n_steps, like.device)
        for group, size in zip(self.groups, sizes, strict=True):
            group.cache = ExactCache(*size, like) if cache == "exact" else ByteCache(*size)

    @property
    def cache_bytes(self) -> int:
        """Memory of keys and values: fixed before the first step."""
        return sum(group.cache.nbytes for group in self.groups)

    @torch.inference_mode()
    def prefill(self, sequence: Tensor) -> Tensor:
        """Run the first steps [rows, K, n] at once; logits [rows, K, card] after the last."""
        n_steps, last = sequence.shape[2], []
        for group in self.groups:
            rows, steps = slice(group.start, group.end), slice(group.pad, n_steps)
            x = embed(self.w, sequence[rows, :, steps], self.positions[rows, steps])
            x = hear_context(self.lm, x, sequence[rows, :, steps])

            def attend(layer: int, qkv: Tensor, group=group) -> Tensor:
                q, k, v = split_qkv(qkv, self.w.num_heads)
                k, v = group.cache.fill(layer, k, v)
                return join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))

            read_text = self.text.reader(group.start, group.end)
            last.append(run_layers(self.w, x, attend, read_text)[:, -1])
        self.length = n_steps
        return heads(self.w, torch.cat(last))

    @torch.inference_mode()
    def step(self, codes: Tensor) -> Tensor:
        """Run one more step [rows, K]; logits [rows, K, card] for the next."""
        at = self.length
        self.length = at + 1
        if self.fixed is not None:
            return self.fixed(codes, at)
        w, n_rows = self.w, codes.shape[0]
        shape = (n_rows, 3, w.num_heads, 1, w.dim // w.num_heads)
        spans = [(g.start, g.end - g.start, at - g.pad, g.cache.attend) for g in self.groups]
        alone = len(spans) == 1

        def attend(layer: int, qkv: Tensor) -> Tensor:
            new = qkv.view(shape)
            if alone:
                _, _, here, mix = spans[0]
                return mix(layer, new, here).view(n_rows, w.dim)
            parts = [mix(layer, new.narrow(0, start, n), here) for start, n, here, mix in spans]
            return torch.cat(parts).view(n_rows, w.dim)

        x = F.embedding(codes + w.row_offsets[:, 0], w.table).sum(1)
        x = torch.add(x, self.positions[:, at], alpha=w.positional_scale)  # [rows, dim]
        return heads(w, run_layers(w, x, attend, self.read_text))


class _Group:
    """Rows start to end, which have the same padding, and their cache without it."""

    def __init__(self, start: int, end: int, pad: int):
        self.start, self.end, self.pad = start, end, pad
        self.cache: ExactCache | ByteCache | None = None


class _FixedStep:
    """A step whose calls do not depend on its position, which is a number in memory.

    Attention reads the whole cache and hides what is not written yet. On a GPU the calls are
    recorded at the first step (a CUDA graph) and replayed from then on; elsewhere they are made.
    """

    def __init__(self, decoder: Decoder, n_rows: int):
        w, self.decoder = decoder.w, decoder
        device = w.table.device
        self.codes = torch.zeros(n_rows, w.n_q, dtype=torch.long, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.counts = [torch.arange(g.cache.n_steps, device=device) for g in decoder.groups]
        self.logits: Tensor | None = None  # of the recorded step, written over by every replay
        self.record: torch.cuda.CUDAGraph | None = None

    def __call__(self, codes: Tensor, at: int) -> Tensor:
        self.codes.copy_(codes)
        self.at.fill_(at)
        if self.codes.device.type != "cuda":
            return self.run(self.codes, self.at)
        if self.record is None:
            self._record()
        self.record.replay()
        return self.logits

    def _record(self) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up; the cache is written alike
            for _ in range(2):
                self.run(self.codes, self.at)
        torch.cuda.current_stream().wait_stream(aside)
        self.record = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.record):
            self.logits = self.run(self.codes, self.at)

    def run(self, codes: Tensor, at: Tensor) -> Tensor:
        """Logits [rows, K, card] of codes [rows, K] at step `at` [1]; the cache is written."""
        decoder, w, n_rows = self.decoder, self.decoder.w, codes.shape[0]
        shape = (n_rows, 3, w.num_heads, 1, w.dim // w.num_heads)
        places = [at - group.pad for group in decoder.groups]
        there = [count <= place for count, place in zip(self.counts, places, strict=True)]

        def attend(layer: int, qkv: Tensor) -> Tensor:
            new = qkv.view(shape)
            parts = [
                group.cache.attend_anywhere(layer, new[group.start : group.end], place, seen)
                for group, place, seen in zip(decoder.groups, places, there, strict=True)
            ]
            return torch.cat(parts).view(n_rows, w.dim)

        x = F.embedding(codes + w.row_offsets[:, 0], w.table).sum(1)
        position = decoder.positions.index_select(1, at)[:, 0]
        x = torch.add(x, position, alpha=w.positional_scale)  # [rows, dim]
        return heads(w, run_layers(w, x, attend, decoder.read_text))


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
                padded[row, : len(text)] = text.to(padded.dtype)
                bias[row, ..., len(text) :] = -torch.inf
        self.keys = text_keys(w, padded)
        self.bias = bias if len(lengths) > 1 else None
        # The text is fixed while queries come and go: query matrix times keys, and values times
        # output matrix, become two thin matrices per row. Worth it while they weigh less.
        self.folded = (
            w.null_text_is_nothing
            and self.n_rows * longest * w.num_heads * padded.itemsize <= w.dim * w.heads.itemsize
        )
        if self.folded:
            self.pairs = [self._fold(*pair) for pair in zip(w.layers, self.keys, strict=True)]
        # One row's two matrices are held as the model's own are: bf16 and int8 read less.
        self.single = self.folded and self.n_rows == 1
        if self.single:
            hold = type(w.heads)
            self.pairs = [(hold(a[0], None), hold(b[0].t(), None)) for a, b in self.pairs]
        elif self.folded:
            self.pairs = [(a.transpose(1, 2).contiguous(), b) for a, b in self.pairs]

    def _fold(self, layer: LayerWeights, keys: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores from normalised x, and what it hears from weights: [rows, H * L, dim] each."""

        def matrix(linear: Linear) -> Tensor:  # [out, in]
            if hasattr(linear, "dense"):
                return linear.dense().to(keys[0].dtype)
            return linear(torch.eye(self.w.dim, dtype=keys[0].dtype, device=keys[0].device)).t()

        per_head = (self.w.num_heads, -1)
        query = matrix(layer.cross_q).unflatten(0, per_head)  # [H, dim / H, dim]
        output = matrix(layer.cross_out).unflatten(1, per_head)  # [dim, H, dim / H]
        into = keys[0] @ query  # [rows, H, L, dim]
        out_of = keys[1] @ output.permute(1, 2, 0)
        return into.flatten(1, 2), out_of.flatten(1, 2)

    def reader(self, start: int, end: int) -> Callable[[int, Tensor, Tensor], Tensor] | None:
        """`read_text` of rows start to end over x [rows, (n,) dim]; None where texts are null."""
        w, n_rows = self.w, min(end, self.n_rows) - start
        if n_rows <= 0:
            return None
        if self.single:
            return self._single_reader()  # one text, so nothing pads it
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
        pairs = [(into[rows], out_of[rows]) for into, out_of in self.pairs]
        per_head = (n_rows, -1, self.w.num_heads, self.keys[0][0].shape[2])
        joined = (n_rows, -1, pairs[0][0].shape[-1])
        flat = (n_rows, -1, self.w.dim)

        def read_text(layer: int, x: Tensor, normed: Tensor) -> Tensor:
            into, out_of = pairs[layer]
            scores = torch.bmm(normed.narrow(0, 0, n_rows).view(flat), into).view(per_head)
            if bias is not None:
                scores = scores + bias
            weights = scores.softmax(-1).view(joined)  # [rows, n, H * L]
            # x is this layer's own, so what the rows with a text hear may be added in place
            x.narrow(0, 0, n_rows).view(flat).baddbmm_(weights, out_of)
            return x

        return read_text

    def _single_reader(self) -> Callable[[int, Tensor, Tensor], Tensor]:
        dim, pairs = self.w.dim, self.pairs
        per_head = (-1, self.w.num_heads, self.keys[0][0].shape[2])

        def read_text(layer: int, x: Tensor, normed: Tensor) -> Tensor:
            into, out_of = pairs[layer]
            scores = into(normed.narrow(0, 0, 1).view(-1, dim)).view(per_head)
            x.narrow(0, 0, 1).view(-1, dim).add_(out_of(scores.softmax(-1).flatten(1)))
            return x

        return read_text
