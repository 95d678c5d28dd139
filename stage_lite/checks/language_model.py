"""Checks of notebook 02: embedding, cache, sampling, and three bugs to find.

Notebook: 02_language_model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import NotYet, accept, call, compare


def embed_steps(function: Callable) -> None:
    """Exercise: one vector per step from K codes.

    Args:
        function: (tables: K of Float[rows, dim], sequence Int[B, K, S], positions Float[S, dim])
            -> Float[B, S, dim].
    """
    generator = torch.Generator().manual_seed(2)
    for n_batch, n_q, n_steps, dim in ((1, 2, 3, 4), (2, 4, 5, 6)):
        tables = [torch.randn(10, dim, generator=generator) for _ in range(n_q)]
        sequence = torch.randint(0, 10, (n_batch, n_q, n_steps), generator=generator)
        places = torch.randn(n_steps, dim, generator=generator)
        each = torch.stack([tables[k][sequence[:, k]] for k in range(n_q)])  # [K, B, S, dim]
        right = each.sum(0) + places
        mistakes = {
            "The codebooks are averaged; MusicGen adds them up": each.mean(0) + places,
            "The positions are missing: without them attention cannot tell an early step from a "
            "late one": each.sum(0),
            "The positions are in there K times: add them once, after the sum": each.sum(0)
            + n_q * places,
            "Only codebook 0 is in there; the sum runs over all K": each[0] + places,
            "All codebooks were looked up in the first table. Code 7 means something else in each "
            "codebook: use tables[k] for sequence[:, k]": sum(
                tables[0][sequence[:, k]] for k in range(n_q)
            )
            + places,
            "The codebooks stand side by side: the model is `dim` wide, so they are added, not "
            "concatenated": torch.cat(list(each + places), -1),
        }
        got = call(function, tables, sequence, places)
        compare(got, right, "the embedded steps", "[B, S, dim]", mistakes)
    accept(function, "the sum over codebooks plus the positions")


def attend_step(function: Callable) -> None:
    """Exercise: attention of one new step over a cache.

    Args:
        function: (query, key, value: Float[dim], cache: list) -> Float[dim]; the cache is empty at
            the first step, grows by one entry a step, and is the reader's to fill.
    """
    generator = torch.Generator().manual_seed(3)
    n_steps, dim = 6, 5
    q, k, v = torch.randn(3, n_steps, dim, generator=generator)
    cache: list[Any] = []
    got = [call(function, q[i], k[i], v[i], cache) for i in range(n_steps)]
    causal = torch.ones(n_steps, n_steps, dtype=torch.bool).tril()
    scores = q @ k.T

    def mixed(scores: Tensor, values: Tensor = v, seen: Tensor = causal) -> Tensor:
        return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values

    right = mixed(scores / dim**0.5)
    outputs = _stack(got, right[0])
    if not cache:
        raise NotYet(
            f"after {n_steps} steps the cache is still empty: append this step's key and value, "
            "so that the steps to come can look back at it"
        )
    if len(cache) != n_steps:
        raise NotYet(
            f"after {n_steps} steps the cache has {len(cache)} entries; expected one (key, value) "
            "a step"
        )
    late = torch.cat([outputs[:1], mixed(scores / dim**0.5, seen=causal.tril(-1))[1:]])
    mistakes = {
        "Each step sees only itself: attend over all keys in the cache": v,
        "The scores are not divided by the square root of dim": mixed(scores),
        "The scores are divided by dim; expected the square root of dim": mixed(scores / dim),
        "A step does not see itself: append its key and value before you attend": late,
        "The weights do not sum to 1: a softmax over the steps is missing": (
            (scores / dim**0.5).masked_fill(~causal, 0.0) @ v
        ),
        "The keys were mixed; the weights come from keys, what is mixed are the values": mixed(
            scores / dim**0.5, values=k
        ),
        "All steps have the same weight: did the softmax run over an axis of length 1?": mixed(
            torch.zeros_like(scores)
        ),
    }
    compare(outputs, right, f"the outputs of {n_steps} steps", "[steps, dim]", mistakes)
    accept(function, "step by step the same as causal attention over all steps at once")


def sampling_probs(function: Callable) -> None:
    """Exercise: temperature and top-k.

    Args:
        function: (logits Float[card], temperature > 0, top_k; 0 is all) -> Float[card].
    """
    generator = torch.Generator().manual_seed(4)
    for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 0), (1.0, 3), (0.7, 2), (1.5, 1)):
        logits = 2 * torch.randn(8, generator=generator)
        cut = _keep(logits, top_k)
        right = (cut / temperature).softmax(0)
        plain = logits.softmax(0)
        kept = torch.isfinite(cut)
        lowest = _keep(-logits, top_k)
        mistakes = {
            "The temperature multiplies: divide the logits, so that a high temperature makes "
            "codes more alike": (cut * temperature).softmax(0),
            "The codes outside top_k are 0, but the others were not scaled up: probabilities "
            "sum to 1. Set the logits to -inf before the softmax": (logits / temperature).softmax(0)
            * kept,
            "The probabilities were divided by the temperature. Divide the logits: what sums to 1 "
            "cannot be divided": (plain * kept) / temperature,
            "top_k kept the least likely codes": (
                (-lowest).masked_fill(lowest == -torch.inf, -torch.inf) / temperature
            ).softmax(0),
            "top_k was ignored": (logits / temperature).softmax(0),
            "The temperature was ignored": cut.softmax(0),
            "The codes outside top_k have logit 0, which is no small number: use -inf": (
                (logits / temperature).masked_fill(~kept, 0.0).softmax(0)
            ),
            "Those are logits; a softmax makes them probabilities": cut / temperature,
        }
        got = call(function, logits, temperature, top_k)
        what = f"the probabilities at temperature {temperature}, top_k {top_k}"
        compare(got, right, what, "[card]", mistakes)
    accept(function, "the probabilities with which the library draws")


def guided(function: Callable) -> None:
    """Find the bug, 1: guidance with the coefficient that the caller asked for.

    Args:
        function: (conditional, unconditional: Float[card], cfg_coef or None, own_coef) ->
            Float[card]; own_coef counts when cfg_coef is None.
    """
    generator = torch.Generator().manual_seed(5)
    own = 3.0
    for asked in (5.0, None, 1.0, 0.0):
        yes, no = torch.randn(2, 6, generator=generator)
        coef = own if asked is None else asked

        def mix(coef: float, yes: Tensor = yes, no: Tensor = no) -> Tensor:
            return no + coef * (yes - no)

        zero = (
            "cfg_coef = 0 was taken for `not given`: 0 is false in Python, so `cfg_coef or "
            "own_coef` loses it. Ask `cfg_coef is None`"
            if asked == 0
            else f"asked for cfg_coef = {asked}, and the result is that of the model's own "
            f"coefficient, {own:g}: this is the bug"
        )
        mistakes = {
            zero: mix(own),
            "With coefficient 1 the result is the conditional logits, with 0 the unconditional "
            "ones: start from the unconditional ones": yes + coef * (yes - no),
            "The roles are swapped: the difference points from the unconditional to the "
            "conditional logits": yes + coef * (no - yes),
            "The conditions push away: unconditional - conditional has the wrong sign": no
            + coef * (no - yes),
        }
        got = call(function, yes, no, asked, own)
        compare(got, mix(coef), f"guided logits for cfg_coef = {asked}", "[card]", mistakes)
    accept(function, "the caller's coefficient counts, and 0 is a coefficient")


def rows_of_batch(function: Callable) -> None:
    """Find the bug, 2: a check of sizes that can fail.

    Args:
        function: (sizes: name -> rows, or None where nothing was given) -> rows of the batch;
            raises ValueError if they disagree.
    """
    none = {"prompt": None, "descriptions": None}
    good = [
        ({"prompt": 2, "descriptions": 2}, 2),
        ({"prompt": None, "descriptions": 3}, 3),
        ({"prompt": 4, "descriptions": None, "context": 4}, 4),
        (none, 1),
    ]
    bad = [{"prompt": 2, "descriptions": 3}, {"prompt": 2, "descriptions": 2, "context": 1}]
    for sizes in bad:
        try:
            got = call(function, dict(sizes))
        except NotYet as error:
            if isinstance(error.__cause__, ValueError):
                continue
            if isinstance(error.__cause__, AssertionError):
                raise NotYet(
                    "an `assert` is for what the program itself can get wrong, and vanishes under "
                    f"`python -O`. {sizes} is the user's mistake: raise ValueError with a sentence"
                ) from None
            raise
        raise NotYet(
            f"{sizes} passed (got {got!r}), although the rows disagree; expected a ValueError. A "
            "list that is not empty is true, whatever it holds: `assert [False]` never fails"
        )
    for sizes, rows in good:
        try:
            got = call(function, dict(sizes))
        except NotYet as error:
            if isinstance(error.__cause__, ValueError):
                raise NotYet(
                    f"{sizes} was refused, although what is given agrees: leave None out before "
                    f"you compare, and without anything there is 1 row; expected {rows}"
                ) from None
            raise
        if got is None:
            raise NotYet(f"{sizes}: got None; expected {rows}. Does it end with `return ...`?")
        if isinstance(got, bool) or got != rows:
            raise NotYet(f"{sizes}: got {got!r}; expected {rows}, the number of rows")
    accept(function, "sizes that disagree are refused, sizes that agree are not")


def are_codes(function: Callable) -> None:
    """Find the bug, 3: a range check that leaves the special token out.

    Args:
        function: (codes Int[B, K, T], card) -> whether all are codes.
    """
    card = 8
    fine = torch.arange(card).view(1, 2, 4)
    special, context, negative = fine.clone(), fine.clone(), fine.clone()
    special[0, 1, 3], context[0, 0, 0], negative[0, 0, 2] = card, card + 1, -1
    cases = [
        (fine, True, "0 to card - 1 are all codes"),
        (special, False, "one place holds card, the special token: it is no code, `<=` lets it in"),
        (context, False, "one place holds card + 1, the context token: it is no code"),
        (negative, False, "one place holds -1: look at the lower end too"),
        (fine[:, :, :0], True, "no code at all is no wrong code"),
    ]
    for codes, right, why in cases:
        got = call(function, codes, card)
        if got is None:
            raise NotYet("got None. Does the function end with `return ...`?")
        if isinstance(got, Tensor) and got.dtype == torch.bool and got.numel() == 1:
            got = bool(got)
        if not isinstance(got, bool):
            raise NotYet(
                f"got a {type(got).__name__}; expected one True or False: `.all()` asks every code"
            )
        if got is not right:
            raise NotYet(f"got {got}, expected {right}: {why}")
    accept(function, "codes are codes, and tokens are not")


# --- helpers -----------------------------------------------------------------------------------


def _keep(logits: Tensor, top_k: int) -> Tensor:
    """The k highest logits, the rest -inf; 0 keeps all."""
    if top_k == 0:
        return logits
    return logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)


def _stack(got: list[Any], like: Tensor) -> Tensor:
    for i, output in enumerate(got):
        compare_shape = isinstance(output, Tensor) and output.shape == like.shape
        if not compare_shape or not output.is_floating_point():
            compare(output, like, f"the output of step {i}", "[dim]")
    return torch.stack(got)
