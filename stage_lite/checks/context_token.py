"""Checks of notebook 03: the longer table, the sequence, mask and positions, the loss.

Notebook: 03_context_token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import NotYet, accept, call, compare, explain


def longer_table(function: Callable) -> None:
    """Exercise: one more row for an embedding.

    Args:
        function: (table nn.Embedding of n rows, row Float[dim]) -> nn.Embedding of n + 1 rows.
    """
    generator = torch.Generator().manual_seed(6)
    for n, dim, dtype in ((5, 3, torch.float32), (9, 4, torch.float32), (5, 3, torch.float16)):
        old = torch.randn(n, dim, generator=generator).to(dtype)
        table = nn.Embedding.from_pretrained(old.clone(), freeze=False)
        row = torch.randn(dim, generator=generator)
        got = call(function, table, row)
        if got is None:
            raise NotYet("got None. Does the function end with `return ...`?")
        if not isinstance(got, nn.Embedding):
            raise NotYet(f"got a {type(got).__name__}; expected an nn.Embedding of {n + 1} rows")
        weight = got.weight.detach()
        mistakes = {
            "The last old row was replaced: that is the special token, which must stay. Append, so "
            f"that {n} rows become {n + 1}": torch.cat([old[:-1], row[None].to(dtype)]),
            "The new row stands first, so every old id now means its neighbour. Append it at the "
            "end": torch.cat([row[None].to(dtype), old]),
            "The table has not grown": old,
        }
        right = torch.cat([old, row[None].to(dtype)])
        if weight.shape == right.shape and not torch.equal(weight[:n], old):
            explain(weight, right, mistakes, atol=0.0)
            raise NotYet("The old rows are not the same to the last bit: what was learnt is lost")
        if weight.dtype != dtype:
            raise NotYet(
                f"the table was {dtype} and became {weight.dtype}: convert the new row, not the "
                "table: row.to(table.weight)"
            )
        compare(weight, right, "the table", "[n + 1, dim]", mistakes, atol=0.0)
        if not got.weight.requires_grad:
            raise NotYet(
                "the new table is frozen, so the token would never learn: from_pretrained freezes "
                "unless you say freeze=False"
            )
        if got.num_embeddings != n + 1:
            raise NotYet(f"num_embeddings says {got.num_embeddings}; expected {n + 1}")
    accept(function, "old rows bit-equal, the new one at the end, and it can learn")


def lay_out(function: Callable) -> None:
    """Exercise: [context | token | target], delayed as one.

    Args:
        function: (context Int[K, Tc], target Int[K, T], special_token_id, context_token_id) ->
            Int[K, Tc + 1 + T + K].
    """
    from stage_lite.delay import shift

    special, token = 98, 99
    for n_q, n_context, n_target in ((2, 3, 3), (4, 5, 2), (4, 1, 6)):
        context = torch.arange(n_q * n_context).view(n_q, n_context)
        target = torch.arange(n_q * n_target).view(n_q, n_target) + 50
        middle = torch.full((n_q, 1), token)
        once = middle.clone()
        once[1:] = special

        def late(*parts: Tensor) -> Tensor:
            return shift(torch.cat(parts, 1)[None], special)[0]

        upright = torch.cat(
            [shift(context[None], special)[0], middle, shift(target[None], special)[0]], 1
        )
        mistakes = {
            "Context and target were delayed one by one and then joined. The delay runs over the "
            "whole, as if it were one piece: late codebooks of the context stand beside the "
            "first target codes": upright,
            "The token is missing between context and target": late(context, target),
            "The token stands in codebook 0 only; it is one frame, in all K codebooks": late(
                context, once, target
            ),
            "The token stands behind the target; it ends the context": late(
                context, target, middle
            ),
            "Target and context have changed places": late(target, middle, context),
            "The token's id is that of the special token: it would be read as `nothing here`": late(
                context, torch.full_like(middle, special), target
            ),
            "There is no delay yet: sl.delay's `shift`, or a loop over codebooks": torch.cat(
                [context, middle, target], 1
            ),
        }
        got = call(function, context, target, special, token)
        right = late(context, middle, target)
        compare(got, right, f"the sequence for K = {n_q}", "[K, Tc + 1 + T + K]", mistakes)
    accept(function, "context, token and target, delayed as one piece")


def mask_and_positions(function: Callable) -> None:
    """Exercise: what a batch of contexts of different length may see, and where its rows begin.

    Args:
        function: (context_lengths: frames, or None for no context, n_target, n_q) ->
            (Bool[B, S], Int[B, S]), S = longest + 1 + n_target + n_q.
    """
    for lengths, n_target, n_q in (([2, 2], 2, 2), ([3, 1], 3, 2), ([4, None, 1], 2, 4)):
        got = call(function, list(lengths), n_target, n_q)
        if not isinstance(got, tuple) or len(got) != 2:
            raise NotYet(
                f"got a {type(got).__name__}; expected two tensors: "
                "`return attention_mask, positions`"
            )
        width = max(n for n in lengths if n is not None) + 1
        steps = torch.arange(width + n_target + n_q)
        pad = torch.tensor([[width - (0 if n is None else n + 1)] for n in lengths])
        kept_token = torch.tensor([[width - ((n or 0) + 1)] for n in lengths])
        mask = steps >= pad
        what = f"contexts of {lengths} frames"
        compare(got[0], mask, f"attention_mask, {what}", "[B, S]", {
            "The mask is turned round: True is what may be seen": ~mask,
            "The padding stands on the right. Rows end together, so that all targets begin at the "
            "same step: pad on the left": mask.flip(1),
            "A row without context has no token either: without a prefix it must compute what "
            "MusicGen computes": steps >= kept_token,
            "Nothing is masked: a shorter row would look at its padding": torch.ones_like(mask),
        })  # fmt: skip
        right = (steps - pad).clamp(min=0)
        compare(got[1], right, f"positions, {what}", "[B, S]", {
            "The positions do not start anew: each row begins with 0 at its first visible step": (
                steps.expand_as(right)
            ),
            "The padding has negative positions; it is never looked at, but 0 is the agreement: "
            "clamp": steps - pad,
            "The positions begin with 1": (steps - pad).clamp(min=0) + 1,
        })  # fmt: skip
    accept(function, "each row sees what it would see alone, and counts as it would count alone")


def target_loss(function: Callable) -> None:
    """Exercise: cross-entropy of the target's codes.

    Args:
        function: (logits Float[K, S, card], sequence Int[K, S], loss_mask Bool[K, S]) -> Float[].
    """
    generator = torch.Generator().manual_seed(7)
    for n_q, n_steps, card in ((1, 4, 5), (2, 6, 5), (4, 9, 7)):
        logits = torch.randn(n_q, n_steps, card, generator=generator)
        sequence = torch.randint(0, card, (n_q, n_steps), generator=generator)
        mask = torch.zeros(n_q, n_steps, dtype=torch.bool)
        for k in range(n_q):
            mask[k, n_steps // 2 + k // 2 : n_steps - n_q + k] = True
        mask[:, -1] |= ~mask.any(1)  # every codebook has something
        sequence = sequence.masked_fill(~mask, card)  # tokens where no loss counts
        sequence[:, 0] = card + 1
        costs = _costs(logits[:, :-1], sequence[:, 1:])  # [K, S - 1]
        counts = mask[:, 1:]
        right = costs[counts].mean()
        mistakes = {
            "Logits at step s are compared with the codes at step s. They were computed from these "
            "codes, so this asks for what is already known: logits at s - 1 predict step s": (
                _costs(logits, sequence)[mask].mean()
            ),
            "The loss is summed; take the mean, so that longer targets do not weigh more": (
                costs[counts].sum()
            ),
            "The mask is turned round: this is the loss of everything but the target": (
                costs[~counts].mean()
            ),
            "Got the probability's mean, not the mean of -log(probability)": (
                (-costs[counts]).exp().mean()
            ),
            "The mask moved the wrong way: it belongs to the codes that are predicted, "
            "loss_mask[:, 1:]": costs[mask[:, :-1]].mean(),
        }
        got = call(function, logits, sequence, mask)
        compare(_scalar(got), right, "the loss", "[]", mistakes)
    accept(function, "mean cross-entropy of the target's codes, each predicted one step before")


# --- helpers -----------------------------------------------------------------------------------


def _costs(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(probability) of each label; tokens count as the last code, as a clamp makes them."""
    labels = labels.clamp(max=logits.shape[2] - 1)
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def _scalar(got: Any) -> Any:
    return torch.tensor(got) if isinstance(got, float) else got
