"""Does the model listen? The loss with the right context, with another song's, and with none.

After its first bar a groove predicts itself, so that the mean loss hides what a context is worth.
The gap (another song's context minus the right one) is therefore also taken over the first second
only, and with the target's own past hidden: there the context is all there is to go by.
Notebook: 04_fine_tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .batch import Batch, hide_history, make_batch
from .errors import StageLiteError
from .examples import Example, shuffle_contexts

if TYPE_CHECKING:
    from torch import Tensor

    from .model import StageModel


@torch.inference_mode()
def context_losses(
    model: StageModel,
    examples: Sequence[Example],
    *,
    batch_size: int = 16,
    precision: str = "32-true",
) -> dict[str, float]:
    """Teacher-forced losses in nats, over the same targets.

    Args:
        model: in eval mode.
        examples: windows with contexts, of more than two songs.
        batch_size: rows per forward pass.
        precision: "bf16-mixed" computes under autocast.

    Returns:
        `right`, `shuffled`, `none`: mean over codebooks and the whole target; `right_first_s` and
        `shuffled_first_s`: over its first second; `right_hidden` and `shuffled_hidden`: with all of
        the target's past hidden; `gap`, `gap_first_s`, `gap_hidden`: shuffled minus right;
        `gap_hidden_0`: of codebook 0.
    """
    shuffled = shuffle_contexts(examples)
    none = [replace(e, context=None, context_codes=None) for e in examples]
    out: dict[str, float] = {}
    for name, rows in (("right", examples), ("shuffled", shuffled), ("none", none)):
        for hidden in (False, True) if name != "none" else (False,):
            losses = _losses(model, rows, hidden, batch_size, precision)  # [N, T, K]
            suffix = "_hidden" if hidden else ""
            out[name + suffix] = float(losses.nanmean())
            if hidden:
                out[f"{name}_hidden_0"] = float(losses[..., 0].nanmean())
            else:
                first = losses[:, : round(model.frame_rate)]
                out[f"{name}_first_s"] = float(first.nanmean())
    for suffix in ("", "_first_s", "_hidden", "_hidden_0"):
        out[f"gap{suffix}"] = out[f"shuffled{suffix}"] - out[f"right{suffix}"]
    return out


def _losses(
    model: StageModel, examples: Sequence[Example], hidden: bool, batch_size: int, precision: str
) -> Tensor:
    """Cross-entropy of every target code, [N, T, K]; NaN where a code is unknown."""
    rows = []
    for start in range(0, len(examples), batch_size):
        batch = make_batch(model, examples[start : start + batch_size])
        if hidden:
            everything = torch.ones_like(batch.prefix.attention_mask)
            batch = hide_history(batch, everything, model.special_token_id)
        rows.append(code_losses(model, batch, precision))
    return torch.cat(rows)


@torch.inference_mode()
def encoder_swap(model: StageModel, examples: Sequence[Example]) -> dict[str, float]:
    """Which part of listening is the context encoder's? It and attention get different songs.

    The codes of the context are one thing that attention can fetch, what the encoder has added to
    their embeddings is the other (`context_encoder.py`). Nothing is missing, as it would be with
    the encoder taken out: one of the two comes from another song.

    Args:
        model: with a context encoder, in eval mode.
        examples: windows with contexts of one length, of more than two songs.

    Returns:
        Losses in nats with the target's past hidden: "both right", "codes wrong", "encoder wrong",
        "both wrong".

    Raises:
        StageLiteError: the model has no encoder, or the contexts differ in length.

    Notebook: 06_attention.
    """
    encoder = getattr(model.lm, "context_encoder", None)
    if encoder is None:
        raise StageLiteError("this model has no context encoder; expected one such as nano")
    right, wrong = make_batch(model, examples), make_batch(model, shuffle_contexts(examples))
    if not bool(right.prefix.attention_mask.all()):
        raise StageLiteError("contexts differ in length; expected windows of one length")
    everything = torch.ones_like(right.prefix.attention_mask)
    out = {}
    for name, codes, heard in (
        ("both right", right, right),
        ("codes wrong", wrong, right),
        ("encoder wrong", right, wrong),
        ("both wrong", wrong, wrong),
    ):
        swap = encoder.register_forward_pre_hook(
            lambda _, given, heard=heard: (heard.inputs[..., : given[0].shape[-1]], *given[1:])
        )
        with swap:
            batch = hide_history(codes, everything, model.special_token_id)
            out[name] = float(code_losses(model, batch).nanmean())
    return out


def code_losses(model: StageModel, batch: Batch, precision: str = "32-true") -> Tensor:
    """Cross-entropy of each code of the target, Float[B, T, K], NaN where it carries no loss."""
    prefix = batch.prefix
    device = prefix.sequence.device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = batch.logits(model.lm)
    n_q, n_frames = model.n_q, prefix.n_target_frames
    per_codebook = []
    for k in range(n_q):  # codebook k of frame t stands at step target_start + t + k
        at = slice(prefix.target_start + k, prefix.target_start + k + n_frames)
        labels = prefix.sequence[:, k, at].clone()
        labels[~prefix.loss_mask[:, k, at]] = -100
        predicted = logits[:, k, k : k + n_frames].float()
        loss = F.cross_entropy(predicted.transpose(1, 2), labels, reduction="none")
        per_codebook.append(loss.masked_fill(labels == -100, float("nan")))
    return torch.stack(per_codebook, dim=-1)
