"""Examples -> one batch of the language model, with what training drops or hides in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from .errors import StageLiteError
from .examples import Example
from .lm import forward
from .prefix import Prefix, build_prefix

if TYPE_CHECKING:
    from .model import StageModel


@dataclass
class Batch:
    """What one step of training or validation computes on."""

    prefix: Prefix
    inputs: Int[Tensor, "B K S"]  # prefix.sequence, or with some of the target's past hidden
    descriptions: list[str | None]
    examples: Sequence[Example] = ()  # what the rows were made from

    def logits(
        self,
        lm: nn.Module,
        text: tuple[Tensor | None, Tensor | None] | None = None,
        **options: Any,
    ) -> Any:
        """`lm.forward` over this batch, from the step before the target's first one on.

        Args:
            lm: audiocraft's LMModel.
            text: `encode_text` of the descriptions, if it is there already.
            options: `need_hidden`, `recompute` and the like.
        """
        from .text import encode_text  # with audiocraft, which `import stage_lite.batch` spares

        text, text_mask = encode_text(lm, self.descriptions) if text is None else text
        return forward(
            lm,
            self.inputs,
            self.prefix.attention_mask,
            self.prefix.positions,
            text,
            text_mask,
            first_step=self.prefix.target_start - 1,
            **options,
        )


def make_batch(
    model: StageModel,
    examples: Sequence[Example],
    *,
    context_dropped: Bool[Tensor, " B"] | None = None,
    text_dropped: Bool[Tensor, " B"] | None = None,
    position_offset: Int[Tensor, " B"] | None = None,
) -> Batch:
    """Lay out examples as STAGE does; audio is encoded, codes are taken as they are.

    Args:
        model: gives the codec, the token ids and the way of counting positions.
        examples: targets may differ in length: what is missing carries no loss.
        context_dropped, text_dropped: rows that go without.
        position_offset: added to all positions of a row.

    Raises:
        StageLiteError: no examples, one without target, or contexts for a model without the token.
    """
    if not examples:
        raise StageLiteError("got no examples; expected at least one")
    targets = [_codes(model, e.target_codes, e.target, e.sample_rate) for e in examples]
    contexts = [_codes(model, e.context_codes, e.context, e.sample_rate) for e in examples]
    if any(target is None for target in targets):
        raise StageLiteError("an example has neither target nor target_codes; expected one")
    if any(context is not None for context in contexts):
        model.check_context_token()
    shape = (len(targets), model.n_q, max(t.shape[-1] for t in targets))
    padded = torch.full(shape, model.special_token_id, device=model.device)
    for row, target in zip(padded, targets, strict=True):
        row[:, : target.shape[-1]] = target
    prefix = build_prefix(
        contexts,
        padded,
        special_token_id=model.special_token_id,
        context_token_id=model.context_token_id,
        context_dropped=context_dropped,
        anchor_frames=model.config.anchor_frames,
        position_offset=position_offset,
    )
    descriptions: list[str | None] = [example.description for example in examples]
    if text_dropped is not None:
        gone = text_dropped.tolist()
        descriptions = [None if g else d for d, g in zip(descriptions, gone, strict=True)]
    return Batch(prefix, prefix.sequence, descriptions, examples)


def hide_history(batch: Batch, hidden: Bool[Tensor, "B S"], special_token_id: int) -> Batch:
    """The same batch, with the target's codes unreadable at the steps where `hidden` is True.

    Only inputs change, never the labels. What stands before the target is not touched: late
    codebooks of the context that share a step with the target stay readable.
    """
    first = batch.prefix.target_start
    hide = (hidden[:, None, :] & batch.prefix.loss_mask)[..., first:]
    inputs = batch.prefix.sequence.clone()
    inputs[..., first:] = inputs[..., first:].masked_fill(hide, special_token_id)
    return replace(batch, inputs=inputs)


def delay_history(batch: Batch, frames: Int[Tensor, " B"], special_token_id: int) -> Batch:
    """The same batch, with the past that the target reads late by so many frames.

    A past that is plausible and out of step is what a model meets when it has begun on the wrong
    beat: with it, only the context tells where the beat is. Only inputs change, never the labels.

        codes        1 2 3 4 5 6
        read, by 2   . . 1 2 3 4      . = special token

    Args:
        frames: of each row, from 0 (unchanged) on.
    """
    first = batch.prefix.target_start
    inputs = batch.inputs.clone()
    for b in frames.nonzero()[:, 0].tolist():
        for k in range(inputs.shape[1]):
            at = batch.prefix.loss_mask[b, k, first:].nonzero()[:, 0] + first
            late = min(int(frames[b]), len(at))
            moved = inputs[b, k, at[: len(at) - late]]
            inputs[b, k, at[:late]] = special_token_id
            inputs[b, k, at[late:]] = moved
    return replace(batch, inputs=inputs)


def _codes(
    model: StageModel, codes: Tensor | None, wav: Tensor | None, sample_rate: int
) -> Int[Tensor, "K T"] | None:
    if codes is None and wav is not None:
        codes = model.encode(wav, sample_rate)[0]
    return None if codes is None else codes.to(model.device)
