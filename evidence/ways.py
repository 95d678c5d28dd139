"""Other ways to give a model the context, each made from the same batch as STAGE's.

    prefix      [context | C | target]      delay over the whole        (STAGE)
    joined      [context | target]          no separator
    summed      [target], at each step the context's frame added to the input
    attended    [target], the context's frames beside the words in the cross-attention
    apart       [delayed context | C | delayed target]    delay over each part alone

A layout takes a batch as `make_batch` lays it out, with aligned positions (the target counts its
frames like the context), and gives one for `finetune(lay_out=...)` and `listening.code_losses`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.batch import Batch
from stage_lite.delay import shift, undelay
from stage_lite.lm import sin_positions
from stage_lite.model import StageModel
from stage_lite.prefix import Prefix
from stage_lite.text import encode_text


@dataclass
class WithoutPrefix(Batch):
    """A batch whose sequence is the target alone; the context comes another way."""

    context: Tensor | None = None  # Int[B, K, Tc]
    heard: Tensor | None = None  # Bool[B]: rows whose context was not dropped

    def embedded(self, lm: nn.Module) -> Tensor:
        """The context's frames in the model's own tables, Float[B, Tc, dim]."""
        return sum(table(self.context[:, k]) for k, table in enumerate(lm.emb))

    def projected(self, lm: nn.Module, x: Tensor) -> Tensor:
        return lm.context_projection(x) * self.heard[:, None, None]


class Summed(WithoutPrefix):
    """Step t, which predicts codebook 0 of frame t, has the context's frame t added to it."""

    def logits(self, lm: nn.Module, text: Any = None, **options: Any) -> Any:
        x = self.projected(lm, self.embedded(lm))
        more = self.inputs.shape[2] - x.shape[1]
        return super().logits(lm, text, added=F.pad(x, (0, 0, 0, more)), **options)


class Attended(WithoutPrefix):
    """Every step attends to all of the context's frames, as it does to the words."""

    def logits(self, lm: nn.Module, text: Any = None, **options: Any) -> Any:
        positions = self.prefix.positions[:, 1 : 1 + self.context.shape[2]]
        where = sin_positions(positions, lm.dim, lm.transformer.max_period)
        source = self.projected(lm, self.embedded(lm) + where)
        words, mask = encode_text(lm, self.descriptions) if text is None else text
        if words is not None:
            source = torch.cat([words * mask.unsqueeze(-1), source], dim=1)
        return super().logits(lm, (source, None), **options)


def joined(batch: Batch, special_token_id: int) -> Batch:
    """No separator: the column of the context token is taken out."""
    old, parts = batch.prefix, _Parts(batch, special_token_id)
    frames = torch.cat([parts.context, parts.target], dim=2)
    token = parts.width  # the step of codebook 0 that holds it
    prefix = Prefix(
        shift(frames, special_token_id),
        old.attention_mask[:, 1:],
        torch.cat([old.positions[:, :token], old.positions[:, token + 1 :]], dim=1),
        old.loss_mask[:, :, 1:],
        old.target_start - 1,
        old.n_target_frames,
    )
    return replace(batch, prefix=prefix, inputs=prefix.sequence)


def apart(batch: Batch, special_token_id: int) -> Batch:
    """The delay over each part alone: the context is heard to its end before the token comes."""
    old, parts = batch.prefix, _Parts(batch, special_token_id)
    more = old.sequence.shape[1] - 1  # steps that the context needs to end
    column = parts.token[:, :, None]
    sequence = [shift(parts.context, special_token_id), column,
                shift(parts.target, special_token_id)[:, :, 1:]]  # fmt: skip
    last = old.positions[:, parts.width - 1 : parts.width]  # of the context
    steps = torch.arange(1, more + 1, device=last.device)
    mask, token = old.attention_mask, parts.width
    prefix = Prefix(
        torch.cat(sequence, dim=2),
        torch.cat([mask[:, :1].expand(-1, more), mask], dim=1),
        torch.cat([old.positions[:, :token], last + steps, old.positions[:, token:]], dim=1),
        F.pad(old.loss_mask, (more, 0)),
        old.target_start + more,
        old.n_target_frames,
    )
    return replace(batch, prefix=prefix, inputs=prefix.sequence)


def without_prefix(batch: Batch, special_token_id: int, kind: type[WithoutPrefix]) -> WithoutPrefix:
    """The target alone, with the positions that it has behind a prefix."""
    old, parts = batch.prefix, _Parts(batch, special_token_id)
    prefix = Prefix(
        shift(parts.target, special_token_id),
        old.attention_mask[:, parts.width :],
        old.positions[:, parts.width :],
        old.loss_mask[:, :, parts.width :],
        1,
        old.n_target_frames,
    )
    return kind(
        prefix, prefix.sequence, batch.descriptions, batch.examples, parts.context, parts.heard
    )


class _Parts:
    """Context, token and target of a batch, without the delay."""

    def __init__(self, batch: Batch, special_token_id: int):
        frames = undelay(batch.prefix.sequence)  # [B, K, width + T]
        self.width = batch.prefix.target_start - 1  # frames of context and token
        if self.width < 2:
            raise ValueError("a batch without any context cannot be laid out in another way")
        self.context = frames[:, :, : self.width - 1]
        self.token = frames[:, :, self.width - 1]  # [B, K]
        self.target = frames[:, :, self.width :]
        self.heard = self.token[:, 0] != special_token_id
        if bool((self.context[self.heard] == special_token_id).any()):
            raise ValueError("contexts of one batch differ in length: expected whole windows")


# --- by name --------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[..., Batch] | None] = {
    "prefix": None,
    "joined": joined,
    "summed": partial(without_prefix, kind=Summed),
    "attended": partial(without_prefix, kind=Attended),
    "apart": apart,
}


def layout_for(way: str, model: StageModel) -> Callable[[Batch], Batch] | None:
    """The layout of a way for a model's batches; None: STAGE's own."""
    layout = LAYOUTS[way]
    return None if layout is None else partial(layout, special_token_id=model.special_token_id)


def prepare(lm: nn.Module, way: str, seed: int) -> None:
    """Give an LMModel the layer that a way needs: audiocraft's projection of conditions."""
    if way not in ("summed", "attended"):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lm.context_projection = nn.Linear(lm.dim, lm.dim)
