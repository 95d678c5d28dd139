"""STAGE's idea: what shall be accompanied stands before the target, behind one new token.

        frames     context 0 1 2 3 | context token | target 0 1 2 ...
        sequence   the delay pattern over all of it, as if it were one piece of music

The model is an unmodified MusicGen whose embedding tables have one more row. A row of a batch whose
context is shorter is padded on the left; one whose context is dropped loses its token too. What is
padded or dropped is masked, and positions start at 0 at each row's first valid step, so that every
row computes what it would compute alone, and a row without context what MusicGen computes.

Source: Strano et al. 2025 (STAGE), arXiv:2504.05690, sec. 3.   Notebook: 03_context_token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stage_lite.delay import check_codes, shift
from stage_lite.errors import StageLiteError

_NO_LABEL = -100


ALIGNED = -1  # as `anchor_frames`: context and target count their frames alike
OFFICIAL = -2  # as `anchor_frames`: every step and position as in the authors' own code


@dataclass(frozen=True)
class Prefix:
    """A batch as the language model sees it. S steps = frames of context, token, target, plus K."""

    sequence: Int[Tensor, "B K S"]
    attention_mask: Bool[Tensor, "B S"]  # False: padded or dropped, never attended to
    positions: Int[Tensor, "B S"]  # 0 at the first valid step of a row
    loss_mask: Bool[
        Tensor, "B K S"
    ]  # entries that are codes of the target; logits at s - 1 predict s
    target_start: int  # step at which codebook 0 holds the target's frame 0; codebook k is k later
    n_target_frames: int

    def to(self, device: torch.device | str) -> "Prefix":
        """The same batch on another device."""
        return Prefix(
            self.sequence.to(device),
            self.attention_mask.to(device),
            self.positions.to(device),
            self.loss_mask.to(device),
            self.target_start,
            self.n_target_frames,
        )


def build_prefix(
    context_codes: Int[Tensor, "B K Tc"] | Sequence[Int[Tensor, "K _"] | None] | None,
    target_codes: Int[Tensor, "B K T"],
    *,
    special_token_id: int,
    context_token_id: int,
    context_dropped: Bool[Tensor, " B"] | None = None,
    anchor_frames: int | None = None,
    position_offset: Int[Tensor, " B"] | None = None,
) -> Prefix:
    """Lay out [context | context token | target] and delay the whole.

        K=2, context a b (row 0) and a (row 1), target 1 2, C = context token, . = special token:

        step           0 1 2 3 4 5 6        mask       positions
        row 0    [[ .  a b C 1 2 . ]        1111111    0123456
                  [ .  . a b C 1 2 ]]
        row 1    [[ .  . a C 1 2 . ]        0111111    0012345
                  [ .  . . a C 1 2 ]]

    Late codebooks of the context stand beside the token and beside the first target codes.

    Args:
        context_codes: codes in [0, card) of equal length, or one tensor per row of any length
            (None: this row has no context), or None for no context at all.
        target_codes: codes in [0, card]; special_token_id stands for unknown and carries no loss.
            T may be 0.
        special_token_id: equals card.
        context_token_id: equals card + 1.
        context_dropped: rows to treat as if they had no context (and no token).
        anchor_frames: None is STAGE. A number A puts the context token of every row at position
            A + 1 whatever the length of its context, so that a frame of the target is always
            equally far from position 0. Equal to STAGE where the context has A frames; where it
            has more, the target takes positions of the context again.
            -1 (`ALIGNED`) counts anew behind the token, from 1: a frame of the target has the
            position of the context's frame that sounds with it, however long the context is.
            -2 (`OFFICIAL`) is the sequence of the authors' code, which their checkpoints need: the
            step of special tokens before the first code is hidden too, so position 0 is the first
            code's, and the token stays where a row has no context:

                row 0   mask 0111111   positions 0012345
                row 1        0011111             0001234
                dropped      0001111             0000123   [ . . . C 1 2 . ]
        position_offset: added to all positions of a row.

    Raises:
        StageLiteError: wrong number of rows or codebooks, a code out of range (names b, k, t), or
            anchor_frames below -2.
    """
    n_batch, n_q, n_frames = target_codes.shape
    if context_token_id == special_token_id:
        raise StageLiteError(f"context_token_id and special_token_id are both {context_token_id}")
    check_codes(target_codes, special_token_id, "target_codes", highest=special_token_id)
    contexts = _rows(context_codes, target_codes, special_token_id)
    if context_dropped is not None:
        contexts = [
            None if gone else c for c, gone in zip(contexts, context_dropped.tolist(), strict=True)
        ]
    # The width is that of the given contexts even if all are dropped: shapes hold still.
    official = anchor_frames == OFFICIAL
    width = max(_width(context_codes), int(official))  # frames of context and token
    frames = target_codes.new_full((n_batch, n_q, width + n_frames), special_token_id)
    frames[:, :, width:] = target_codes
    pads, lengths = [], []
    for b, context in enumerate(contexts):
        length = 0 if context is None else context.shape[1]
        if context is not None:
            frames[b, :, width - 1 - length : width - 1] = context
        if context is not None or official:
            frames[b, :, width - 1] = context_token_id
        pads.append(width - length if context is None or official else width - 1 - length)
        lengths.append(length)
    if official:
        anchor_frames = None  # positions count on from there as MusicGen's
    if anchor_frames is not None and anchor_frames < ALIGNED:
        raise StageLiteError(
            f"anchor_frames is {anchor_frames}: expected -1 (aligned), -2 (official), a number of "
            "frames or None"
        )

    device = target_codes.device
    sequence = shift(frames, special_token_id)  # [B, K, S]
    steps = torch.arange(sequence.shape[2], device=device)
    pad = torch.tensor(pads, device=device)[:, None]  # [B, 1]
    positions = (steps - pad).clamp(min=0)  # [B, S]
    if anchor_frames is not None:
        length = torch.tensor(lengths, device=device)[:, None]
        has_context = torch.tensor([c is not None for c in contexts], device=device)[:, None]
        positions = positions + (anchor_frames - length) * (has_context & (positions > length))
    if position_offset is not None:
        positions = positions + position_offset[:, None]

    known = torch.zeros_like(frames, dtype=torch.bool)
    known[:, :, width:] = target_codes != special_token_id
    return Prefix(
        sequence=sequence,
        attention_mask=steps >= pad,
        positions=positions,
        loss_mask=shift(known.long(), 0).bool(),
        target_start=width + 1,
        n_target_frames=n_frames,
    )


def prefix_loss(
    logits: Float[Tensor, "B K n card"], prefix: Prefix
) -> tuple[Float[Tensor, ""], Float[Tensor, " K"]]:
    """Cross-entropy of the target's codes: mean over codebooks, and of each codebook.

    Args:
        logits: of all S steps, or of the last n of them, if these hold step target_start - 1
            (`forward(lm, ..., first_step=prefix.target_start - 1)`).
        prefix: what the logits were computed from.

    Returns:
        (loss, loss of each codebook), in nats; a codebook without any known code counts as 0.
    """
    n_steps = prefix.sequence.shape[2]
    first = prefix.target_start - 1 - (n_steps - logits.shape[2])
    if first < 0:
        raise StageLiteError(
            f"logits of the last {logits.shape[2]} steps: expected at least the last "
            f"{n_steps - prefix.target_start + 1} of {n_steps}"
        )
    n_q, card = logits.shape[1], logits.shape[3]
    # Codebooks last, as `forward` has them in memory, and labels moved instead of logits cut: the
    # largest tensor of a training step is read where it stands.
    n_labels = logits.shape[2] - 1 - first
    labels = prefix.sequence.new_full((len(prefix.sequence), logits.shape[2], n_q), _NO_LABEL)
    mask = prefix.loss_mask[:, :, prefix.target_start :].transpose(1, 2)  # [B, n_labels, K]
    targets = prefix.sequence[:, :, prefix.target_start :].transpose(1, 2)
    labels[:, first : first + n_labels] = targets.masked_fill(~mask, _NO_LABEL)
    losses = F.cross_entropy(
        logits.transpose(1, 2).reshape(-1, card).float(),
        labels.flatten(),
        ignore_index=_NO_LABEL,
        reduction="none",
    )
    per_codebook = losses.view(-1, n_q).sum(0) / mask.reshape(-1, n_q).sum(0).clamp(min=1)
    return per_codebook.mean(), per_codebook


def extend_embedding(
    lm: nn.Module, init: Literal["kaiming", "mean", "zeros"] = "kaiming", seed: int = 0
) -> nn.Module:
    """Add the context token to an LMModel: one row per codebook table, id card + 1. In place.

    The old rows keep their bits and the heads keep their card columns: the new token can be read
    but never be generated. The tables become new parameters, so make the optimiser afterwards.

    Args:
        lm: audiocraft's LMModel.
        init: "kaiming" as STAGE (normal with variance 2 / dim), "mean" of the codes' rows, "zeros".
        seed: for "kaiming"; no global random state is touched.

    Returns:
        The same LMModel.

    Raises:
        StageLiteError: the row is there already, or `init` is unknown.
    """
    if init not in ("kaiming", "mean", "zeros"):
        raise StageLiteError(f"init is {init!r}: expected 'kaiming', 'mean' or 'zeros'")
    if has_context_row(lm):
        raise StageLiteError(
            f"the embedding has {lm.emb[0].num_embeddings} rows for card {lm.card}: the context "
            "token is there already, and a second one would have no meaning"
        )
    generator = torch.Generator().manual_seed(seed)
    for table in lm.emb:
        old = table.weight.detach()
        if init == "kaiming":
            row = torch.randn(1, old.shape[1], generator=generator) * (2 / old.shape[1]) ** 0.5
        elif init == "mean":
            row = old[: lm.card].float().mean(0, keepdim=True)
        else:
            row = torch.zeros(1, old.shape[1])
        table.weight = nn.Parameter(
            torch.cat([old, row.to(old)]), requires_grad=table.weight.requires_grad
        )
        table.num_embeddings = old.shape[0] + 1
    return lm


def has_context_row(lm: nn.Module) -> bool:
    """Whether an LMModel's embedding tables hold the context token, id card + 1."""
    return lm.emb[0].weight.shape[0] == lm.card + 2


def _rows(
    context_codes: Tensor | Sequence[Tensor | None] | None,
    target_codes: Tensor,
    special_token_id: int,
) -> list[Tensor | None]:
    """One checked [K, Tc] tensor or None per row of the batch."""
    n_batch, n_q, _ = target_codes.shape
    if context_codes is None:
        return [None] * n_batch
    if len(context_codes) != n_batch:
        raise StageLiteError(
            f"context_codes has {len(context_codes)} rows, target_codes {n_batch}: "
            "expected the same number"
        )
    if isinstance(context_codes, Tensor):
        check_codes(context_codes, special_token_id, "context_codes")
    rows: list[Tensor | None] = []
    for b, context in enumerate(context_codes):
        if context is not None:
            if context.dim() != 2 or context.shape[0] != n_q:
                raise StageLiteError(
                    f"context of row {b} has the shape {list(context.shape)}: "
                    f"expected [{n_q}, frames]"
                )
            if not isinstance(context_codes, Tensor):
                try:
                    check_codes(context[None], special_token_id)
                except StageLiteError as error:
                    raise StageLiteError(
                        str(error).replace("codes[0,", f"context_codes[{b},")
                    ) from None
        rows.append(context)
    return rows


def _width(context_codes: Tensor | Sequence[Tensor | None] | None) -> int:
    """Frames that context and token take: 0 when no row was given a context."""
    if context_codes is None:
        return 0
    return max((1 + c.shape[1] for c in context_codes if c is not None), default=0)
