"""The language model: audiocraft's LMModel as the owner of the weights, one forward pass over them.

The weights, their names and their meaning are MusicGen's. The forward pass is written anew, because
a prefix needs what audiocraft's lacks: masked steps, positions that restart per row, a cache that
is allocated once, attention weights on request. Without those it computes what `LMModel.forward`
computes.

The mathematics of a layer stand in one place, `run_layers`; training, inspection and generation
call it with different ideas of where keys and values come from and how a matrix is applied.

Source: Copet et al. 2023 (MusicGen), arXiv:2306.05284.   Notebook: 02_language_model.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stage_lite.context_encoder import hear_context
from stage_lite.errors import StageLiteError
from stage_lite.lm_weights import LMWeights, weights_of

Keep = Callable[[int, Tensor], Tensor | None]  # (layer, attention weights) -> what is kept of them


def forward(
    lm: nn.Module,
    sequence: Int[Tensor, "B K S"],
    attention_mask: Bool[Tensor, "B S"] | None = None,
    positions: Int[Tensor, "B S"] | None = None,
    text: Float[Tensor, "B L dim"] | None = None,
    text_mask: Bool[Tensor, "B L"] | None = None,
    *,
    added: Float[Tensor, "B S dim"] | None = None,
    cache: "KVCache | None" = None,
    first_step: int = 0,
    need_attention: bool | Keep = False,
    need_hidden: bool = False,
    need_text_attention: bool | Keep = False,
    recompute: bool = False,
) -> Float[Tensor, "B K n card"] | tuple[Tensor | None, ...]:
    """Logits of the next code of every codebook at every step; differentiable, also in autocast.

    Args:
        lm: audiocraft's LMModel (norm first, sinusoidal positions).
        sequence: delayed codes, special and context tokens.
        attention_mask: False marks steps that no other step attends to. Their own logits are finite
            and mean nothing where the mask is a padding on the left.
        positions: of each step; None counts 0, 1, 2, ... (on from the cache's length).
        text, text_mask: projected description, see `text.encode_text`. Masked words are zeroed and
            still attended to, as in audiocraft. None is the null text.
        added: to the embedding of each step: a condition that is summed onto the input.
        cache: steps seen before; the new ones are appended. Not with gradients.
        first_step: logits only from this step on, to spare work where only the target counts.
        need_attention: also return the self-attention weights, Float[layers, B, heads, S, S_keys].
            A function chooses what of them to keep: it gets (layer, weights [B, heads, S, S_keys])
            and returns a part of its own memory, or None for nothing of this layer.
        need_hidden: also return the normalised output of the last layer, Float[B, S, dim].
        need_text_attention: as need_attention, of the attention to the text's words,
            Float[layers, B, heads, S, L]; None where there is no text.
        recompute: keep only each layer's input for the backward pass and compute the layer again
            there (activation checkpointing): the same gradients, less memory, a third more work.

    Returns:
        Float[B, K, S - first_step, card]; entry s predicts step first_step + s + 1. With any of
        need_... a tuple: (logits, attention if asked, hidden if asked, text attention if asked).

    Raises:
        StageLiteError: the model has parts that this pass does not know, n_q does not fit, or an id
            has no row in the embedding (a context token without `extend_embedding`).
    """
    w = weights_of(lm)
    n_batch, n_q, n_steps = sequence.shape
    if n_q != w.n_q:
        raise StageLiteError(f"sequence has {n_q} codebooks: expected {w.n_q}")
    _check_ids(w, sequence)
    if positions is None:
        start = 0 if cache is None else cache.length
        positions = torch.arange(start, start + n_steps, device=sequence.device)[None]  # [1, S]
    back = None  # how to undo a change of the order of steps
    attention, words = _noted(need_attention), _noted(need_text_attention)
    if cache is not None:
        attend = cache.attend(n_steps, attention_mask, attention if need_attention else None)
    elif need_attention:
        mask = _dense_mask(attention_mask, n_steps, sequence.device)
        attend = partial(_attend_openly, mask=mask, num_heads=w.num_heads, attention=attention)
    elif attention_mask is None:
        attend = partial(_attend, mask=None, num_heads=w.num_heads)
    elif _is_left_padding(attention_mask):
        # Causal attention never looks right: with the padding moved there it needs no mask, and
        # the kernel skips half of the work. Rows are rolled by their padding, and back at the end.
        sequence, positions, back = _padding_to_the_right(sequence, positions, attention_mask)
        attend = partial(_attend, mask=None, num_heads=w.num_heads)
    else:
        mask = _dense_mask(attention_mask, n_steps, sequence.device)
        attend = partial(_attend, mask=mask, num_heads=w.num_heads)

    x = embed(w, sequence, sin_positions(positions, w.dim, w.max_period))  # [B, S, dim]
    x = hear_context(lm, x, sequence, attention_mask if back is None else None)
    if added is not None:
        x = x + (added if back is None else _pick_steps(added, back.argsort(dim=1))).to(x.dtype)
    text = null_or_masked(w, text, text_mask, n_batch)
    read_text = None
    if text is not None:
        looked = words if need_text_attention else None
        read_text = text_attention(w, text_keys(w, text), attention=looked)
    hidden = run_layers(w, x, attend, read_text, recompute)
    if cache is not None:
        cache.length += n_steps
    if back is not None:
        hidden = _pick_steps(hidden, back)
    logits = heads(w, hidden[:, first_step:]).transpose(1, 2)  # [B, K, S - first_step, card]
    if not (need_attention or need_hidden or need_text_attention):
        return logits
    extras: list[Tensor | None] = []
    if need_attention:
        extras.append(torch.stack(attention))
    if need_hidden:
        extras.append(hidden)
    if need_text_attention:
        extras.append(torch.stack(words) if words else None)
    return (logits, *extras)


def _check_ids(w: LMWeights, sequence: Tensor) -> None:
    """The tables lie below one another: an id too high would read another codebook's row."""
    if torch.compiler.is_compiling() or sequence.numel() == 0:
        return
    n_rows = w.table.shape[0] // w.n_q
    low, high = (int(v) for v in sequence.aminmax())
    if low < 0 or high >= n_rows:
        wrong = low if low < 0 else high
        why = "the context token: try extend_embedding(lm)" if wrong == w.card + 1 else "no code"
        raise StageLiteError(
            f"sequence holds the id {wrong}, {why}; expected ids in [0, {n_rows - 1}]"
        )


# --- the mathematics -----------------------------------------------------------------------------


def embed(w: LMWeights, sequence: Tensor, position_embedding: Tensor) -> Tensor:
    """Sum over codebooks of the embedded ids [B, K, S], plus the positions [B or 1, S, dim]."""
    n_batch, n_q, n_steps = sequence.shape
    rows = (sequence + w.row_offsets).transpose(1, 2).reshape(-1, n_q)  # [B * S, K]
    x = F.embedding_bag(rows, w.table, mode="sum").view(n_batch, n_steps, w.dim)
    return x + w.positional_scale * position_embedding.to(x.dtype)


def sin_positions(
    positions: Int[Tensor, "*shape"], dim: int, max_period: float
) -> Float[Tensor, "*shape dim"]:
    """audiocraft's sinusoidal embedding: cosines of all frequencies, then sines."""
    half = torch.arange(dim // 2, device=positions.device, dtype=torch.float32)
    period = torch.full([], max_period, device=positions.device) ** (half / (dim // 2 - 1))
    phase = positions[..., None].float() / period
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)


def run_layers(
    w: LMWeights,
    x: Tensor,
    attend: Callable[[int, Tensor], Tensor],
    read_text: Callable[[int, Tensor, Tensor], Tensor] | None,
    recompute: bool = False,
) -> Tensor:
    """All layers and the last norm over x [..., dim].

    Args:
        attend: (layer, queries, keys and values in one [..., 3 dim]) -> mixed values [..., dim].
        read_text: (layer, x, normalised x) -> x with what the text says added; None: null text.
        recompute: each layer again in the backward pass, see `forward`.
    """
    dim = x.shape[-1:]

    def run(i: int, x: Tensor) -> Tensor:
        layer = w.layers[i]
        x = layer.out.add_to(x, attend(i, layer.qkv(torch.layer_norm(x, dim, *layer.norm1))))
        if read_text is not None:
            x = read_text(i, x, torch.layer_norm(x, dim, *layer.norm_cross))
        h = layer.up(torch.layer_norm(x, dim, *layer.norm2))
        return layer.down.add_to(x, layer.activation(h))

    if recompute:
        run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
    for i in range(len(w.layers)):
        x = run(i, x)
    return torch.layer_norm(x, dim, *w.out_norm)


def heads(w: LMWeights, hidden: Tensor) -> Tensor:
    """Logits of all codebooks in one product: [B, S, dim] -> [B, S, K, card]."""
    return w.heads(hidden).view(*hidden.shape[:-1], w.n_q, w.card)


def null_or_masked(
    w: LMWeights, text: Tensor | None, text_mask: Tensor | None, n_batch: int
) -> Tensor | None:
    """Zero the masked words. None stays None if zeros would change nothing, else becomes zeros."""
    if text is not None:
        return text if text_mask is None else text * text_mask.unsqueeze(-1)
    return None if w.null_text_is_nothing else w.table.new_zeros(n_batch, 1, w.dim)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # [B, S, dim] -> [B, H, S, dim / H]


def split_qkv(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, H, S, dim / H]
    return q, k, v


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # [B, H, S, dim / H] -> [B, S, dim]


SHORT_STEPS = 320  # up to here, on a CPU, attention written out trains faster than the fused kernel


def _attend(_: int, qkv: Tensor, mask: Tensor | None, num_heads: int) -> Tensor:
    q, k, v = split_qkv(qkv, num_heads)
    if mask is None and q.requires_grad and q.shape[2] <= SHORT_STEPS and q.device.type == "cpu":
        return join_heads(_attend_written_out(q, k, v))
    return join_heads(
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    )


def _attend_written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as two batched products: 3 times the fused kernel's speed at 130 steps."""
    n_batch, num_heads, n_steps, width = q.shape
    q, k, v = (x.reshape(n_batch * num_heads, n_steps, width) for x in (q, k, v))
    causal = torch.full((n_steps, n_steps), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(causal, q, k.transpose(1, 2), alpha=width**-0.5)  # [B * H, S, S]
    return torch.bmm(scores.softmax(-1), v).view(n_batch, num_heads, n_steps, width)


def _attend_openly(
    _: int, qkv: Tensor, mask: Tensor, num_heads: int, attention: list[Tensor]
) -> Tensor:
    """The same, with the weights written down in `attention`."""
    q, k, v = split_qkv(qkv, num_heads)
    return join_heads(_weigh(q, k, v, mask, attention))


def _weigh(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, attention: list[Tensor]) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)  # [B, H, S, S_keys]
    attention.append(weights)
    return weights @ v


class _Kept(list):
    """Of each layer's attention weights, in their order, what a function keeps."""

    def __init__(self, keep: Keep):
        super().__init__()
        self.keep, self.layer = keep, 0

    def append(self, weights: Tensor) -> None:
        part = self.keep(self.layer, weights)
        self.layer += 1
        if part is not None:
            super().append(part)


def _noted(need: bool | Keep) -> list[Tensor]:
    return _Kept(need) if callable(need) else []


def text_keys(w: LMWeights, text: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys (scaled for the softmax) and values of the text per layer: [B, H, L, dim / H] each."""
    scale = math.sqrt(w.dim // w.num_heads)
    return [
        (
            _split_heads(layer.cross_k(text), w.num_heads) / scale,
            _split_heads(layer.cross_v(text), w.num_heads),
        )
        for layer in w.layers
    ]


def text_attention(
    w: LMWeights,
    keys: list[tuple[Tensor, Tensor]],
    bias: Tensor | None = None,
    attention: list[Tensor] | None = None,
) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Cross-attention to the text whose `text_keys` are given, for `run_layers` over [B, S, dim].

    Args:
        bias: added to the scores, [B, 1, 1, L].
        attention: where each layer's weights [B, H, S, L] are written down.
    """

    def read_text(layer: int, x: Tensor, normed: Tensor) -> Tensor:
        # Written out: for a handful of keys half as expensive as the fused kernel's backward.
        (k, v), part = keys[layer], w.layers[layer]
        scores = _split_heads(part.cross_q(normed), w.num_heads) @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        weights = scores.softmax(-1)
        if attention is not None:
            attention.append(weights)
        return part.cross_out.add_to(x, join_heads(weights @ v))

    return read_text


# --- masks ---------------------------------------------------------------------------------------


def _dense_mask(attention_mask: Tensor | None, n_steps: int, device: torch.device) -> Tensor:
    """[B or 1, 1, S, S]: causal, no masked keys, but every step sees itself."""
    causal = torch.ones(n_steps, n_steps, dtype=torch.bool, device=device).tril()
    if attention_mask is None:
        return causal[None, None]
    itself = torch.eye(n_steps, dtype=torch.bool, device=device)
    return ((causal & attention_mask[:, None, :]) | itself)[:, None]


def _is_left_padding(attention_mask: Tensor) -> bool:
    if (
        torch.compiler.is_compiling()
    ):  # the answer would depend on data: the dense mask is always right
        return False
    return bool((attention_mask[:, 1:] >= attention_mask[:, :-1]).all())


def _padding_to_the_right(
    sequence: Tensor, positions: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Roll each row so that its padding stands at the end; the third result undoes it."""
    n_batch, _, n_steps = sequence.shape
    pad = (~attention_mask).sum(1, keepdim=True)  # [B, 1]
    steps = torch.arange(n_steps, device=sequence.device)
    order = (steps + pad) % n_steps  # [B, S]
    sequence = sequence.gather(2, order[:, None].expand_as(sequence))
    positions = positions.expand(n_batch, -1).gather(1, order)
    return sequence, positions, (steps - pad) % n_steps


def _pick_steps(x: Tensor, order: Tensor) -> Tensor:
    """x[b, order[b]] as one row-wise selection, whose gradient is cheap too."""
    n_batch, n_steps, dim = x.shape
    rows = order + torch.arange(n_batch, device=x.device)[:, None] * n_steps
    return x.reshape(-1, dim).index_select(0, rows.flatten()).view(n_batch, n_steps, dim)


# --- cache ---------------------------------------------------------------------------------------


class KVCache:
    """Keys and values of the steps seen so far, in memory that is allocated once.

    Args:
        lm: the LMModel that it will serve, for its sizes.
        n_batch: rows, both branches of guidance counted.
        max_steps: the longest sequence that fits.
        dtype: of keys and values; None takes the weights'.
    """

    def __init__(
        self, lm: nn.Module, n_batch: int, max_steps: int, dtype: torch.dtype | None = None
    ):
        self.num_heads = lm.transformer.layers[0].self_attn.num_heads
        table = lm.emb[0].weight
        shape = (n_batch, 2, self.num_heads, max_steps, lm.dim // self.num_heads)
        dtype = table.dtype if dtype is None else dtype
        # one tensor per layer, keys and values side by side: a step writes both in one call
        self.kv = [
            torch.zeros(shape, dtype=dtype, device=table.device) for _ in lm.transformer.layers
        ]
        self.visible = torch.ones(n_batch, max_steps, dtype=torch.bool, device=table.device)
        self.length = 0  # steps that are in
        self.max_steps = max_steps

    def attend(
        self, n_steps: int, attention_mask: Tensor | None, attention: list[Tensor] | None = None
    ) -> Callable[[int, Tensor], Tensor]:
        """How every layer attends while `n_steps` new steps are appended, for `run_layers`.

        The caller adds n_steps to `length` afterwards.
        """
        start, end = self.length, self.length + n_steps
        if end > self.max_steps:
            raise StageLiteError(f"the cache holds {self.max_steps} steps: {end} do not fit")
        if attention_mask is not None:
            self.visible[:, start:end] = attention_mask
        past = torch.arange(end, device=self.visible.device)
        new = past[start:, None]
        mask = ((past <= new) & self.visible[:, None, :end]) | (past == new)
        mask = mask[:, None]  # [B, 1, n_steps, end]

        def attend(layer: int, qkv: Tensor) -> Tensor:
            q, k, v = split_qkv(qkv, self.num_heads)
            kv = self.kv[layer]
            kv[:, 0, :, start:end], kv[:, 1, :, start:end] = k, v
            k, v = kv[:, 0, :, :end].to(q.dtype), kv[:, 1, :, :end].to(q.dtype)
            if attention is not None:
                return join_heads(_weigh(q, k, v, mask, attention))
            return join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

        return attend
