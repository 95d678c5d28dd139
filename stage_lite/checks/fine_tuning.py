"""Checks of notebook 04: what is dropped, one step of training, what a checkpoint must hold.

Notebook: 04_fine_tuning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..prefix import Prefix, build_prefix, prefix_loss
from .base import NotYet, accept, call, compare

if TYPE_CHECKING:
    from ..training import TrainingConfig

CARD, N_Q = 6, 2
STEPS = 6  # of training; the warm-up lies within


def dropped_rows(function: Callable) -> None:
    """Exercise: which rows of a batch go without.

    Args:
        function: (numbers of the examples, share, seed) -> Bool[B].
    """
    some, share = list(range(40, 72)), 0.5
    first, again = (_rows(function, some, share, 3) for _ in range(2))
    if not torch.equal(first, again):
        raise NotYet(
            "The same call gave other rows the second time. A run that was stopped could not go on "
            "as it would have: draw from a generator that is made from the seed"
        )
    later = _rows(function, [n + 32 for n in some], share, 3)
    if torch.equal(first, later):
        raise NotYet(
            "Examples 40 to 71 and 72 to 103 lose the same rows: every step drops the same rows, "
            "and some places of the batch never go without. The number of the example must take "
            "part in the draw"
        )
    whole = [_rows(function, some[i : i + 8], share, 3) for i in range(0, 32, 8)]
    if all(bool(rows.all()) or not bool(rows.any()) for rows in whole):
        raise NotYet(
            "A batch loses all of its rows or none: one number was drawn for all of them. Draw one "
            "for each row"
        )
    if not torch.equal(torch.cat(whole), first):
        raise NotYet(
            "An example's fate changes with the batch that it is in. It must follow from (seed, "
            "its own number), so that two processes with half a batch each drop what one would"
        )
    if torch.equal(_rows(function, some, share, 4), first):
        raise NotYet("Another seed drops the same rows: the seed takes no part")
    for share in (0.0, 0.25, 1.0):
        found = float(_rows(function, list(range(2000)), share, 3).float().mean())
        if abs(found - share) > 0.05:
            turned = " Is the comparison turned round?" if abs(1 - found - share) < 0.05 else ""
            raise NotYet(f"share {share:g}: {found:.2f} of 2000 rows are dropped.{turned}")
    accept(function, "each example's fate follows from the seed and its own number")


def train_step(function: Callable) -> None:
    """Exercise: one optimizer step.

    Args:
        function: (lm, optimizer, prefix, step, config) -> the loss, a float.
    """
    right, losses = _trained(_step)
    mistakes = {
        "The loss counts the context too. It is given, and to be good at guessing it is no aim: "
        "prefix_loss leaves it out": _trained(_step, loss_of=_everything)[0],
        "The gradients of earlier steps are still in there: backward() adds to what it finds. "
        "optimizer.zero_grad()": _trained(_step, clear=False)[0],
        "The learning rate is there in full from the first step on: the warm-up is missing. "
        "(step + 1) / warmup_steps of it, and never more than all": (
            _trained(_step, warm=lambda step, n: 1.0)[0]
        ),
        "The first step has the learning rate 0 and learns nothing: count from (step + 1)": (
            _trained(_step, warm=lambda step, n: min(1.0, step / n))[0]
        ),
        "The learning rate goes on rising after the warm-up: min(1, ...)": (
            _trained(_step, warm=lambda step, n: (step + 1) / n)[0]
        ),
        "The gradient is not clipped: nn.utils.clip_grad_norm_, before the optimizer's step": (
            _trained(_step, clip=False)[0]
        ),
        "Nothing has moved: loss.backward() finds the gradients, optimizer.step() follows them": (
            _flat(_tiny_lm())
        ),
    }
    lm, said = _tiny_lm(), []
    optimizer = _optimizer(lm)
    for step in range(STEPS):
        batch = _batch(step)
        said.append(call(function, lm, optimizer, batch, step, _config()))
        if not torch.equal(batch.sequence, _batch(step).sequence):
            raise NotYet("train_step changed the batch, which its caller still needs")
    compare(_flat(lm), right, f"the weights after {STEPS} steps", "[n]", mistakes, atol=1e-4)
    for step, (got, expected) in enumerate(zip(said, losses, strict=True)):
        if isinstance(got, Tensor) and got.requires_grad:
            raise NotYet(
                "The loss that comes back still holds its graph, and with it the memory of the "
                "whole step: return float(loss)"
            )
        compare(_scalar(got), torch.tensor(expected), f"the loss of step {step}", "[]", atol=1e-3)
    accept(function, f"after {STEPS} steps the weights are those of the library's loop")


def snapshot(function: Callable) -> None:
    """Exercise: all that a run needs in order to go on as if nothing had happened.

    Args:
        function: (lm, optimizer, generator, step) -> dict with "lm", "optimizer", "random", "step".
    """
    lm, generator = _tiny_lm(), torch.Generator().manual_seed(11)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=0.05)
    _go(lm, optimizer, generator, 0, 3)
    truth = {
        "lm": copy.deepcopy(lm.state_dict()),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "random": generator.get_state(),
        "step": 3,
    }
    state = call(function, lm, optimizer, generator, 3)
    if not isinstance(state, dict):
        raise NotYet(f"got a {type(state).__name__}; expected a dict with the keys {list(truth)}")
    if not _alike(lm.state_dict(), truth["lm"]) or not torch.equal(
        generator.get_state(), truth["random"]
    ):
        raise NotYet("a snapshot is a look: yours changed the weights or drew random numbers")
    _go(lm, optimizer, generator, 3, 6)  # training goes on; the snapshot must not
    for key, why in {
        "lm": "the weights",
        "optimizer": "the optimizer: its moments say where each weight has been heading. Without "
        "them the first steps after the pause are those of a beginner",
        "random": "the random state: what is dropped after the pause would not be what would have "
        "been dropped. generator.get_state()",
        "step": "the step: the warm-up and the windows would begin anew",
    }.items():
        if key not in state:
            raise NotYet(f"the snapshot has no {key!r}: {why}")
    for key in ("lm", "optimizer"):
        if not isinstance(state[key], dict):
            raise NotYet(
                f"{key!r} holds a {type(state[key]).__name__}; expected its state_dict(), copied"
            )
        if _alike(state[key], truth[key]):
            continue
        if _alike(state[key], (lm if key == "lm" else optimizer).state_dict()):
            raise NotYet(
                f"{key!r} has changed since: state_dict() is no copy, its tensors are those that "
                "training goes on to change. copy.deepcopy them"
            )
        raise NotYet(f"{key!r} is not what the state_dict() was at the time")
    if state["step"] != 3:
        raise NotYet(f"'step' is {state['step']!r}; expected 3, the steps that are done")
    if not isinstance(state["random"], Tensor) or not torch.equal(state["random"], truth["random"]):
        raise NotYet(
            "'random' is not the generator's state: the seed alone would begin its numbers from "
            "the start. generator.get_state()"
        )
    other, numbers = _tiny_lm(seed=1), torch.Generator()
    restored = torch.optim.AdamW(other.parameters(), lr=0.05)
    other.load_state_dict(state["lm"])
    restored.load_state_dict(state["optimizer"])
    numbers.set_state(state["random"])
    _go(other, restored, numbers, state["step"], 6)
    if not torch.equal(_flat(other), _flat(lm)):
        raise NotYet("the run that went on from the snapshot did not end where the other one did")
    accept(function, "the run that went on ends with the same bits as the one that never stopped")


# --- a model and a loop to try answers on --------------------------------------------------------


@cache
def _config() -> TrainingConfig:
    from ..training import TrainingConfig

    return TrainingConfig(learning_rate=0.5, warmup_steps=4, clip_norm=0.3)  # each of them is felt


@cache
def _first_lm(seed: int) -> nn.Module:
    from ..lm_config import LMConfig, build_lm

    config = LMConfig(N_Q, CARD, dim=8, num_layers=1, num_heads=2, context_token=True)
    return build_lm(config, seed=seed)


def _tiny_lm(seed: int = 0) -> nn.Module:
    return copy.deepcopy(_first_lm(seed)).train()


def _batch(step: int) -> Prefix:
    generator = torch.Generator().manual_seed(step)
    codes = torch.randint(0, CARD, (3, N_Q, 9), generator=generator)
    return build_prefix(
        codes[:, :, :4], codes[:, :, 4:], special_token_id=CARD, context_token_id=CARD + 1
    )


def _optimizer(lm: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(lm.parameters(), lr=123.0, momentum=0.5)  # the rate is the reader's


def _logits(lm: nn.Module, prefix: Prefix) -> Tensor:
    from ..lm import forward

    return forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)


def _target(logits: Tensor, prefix: Prefix) -> Tensor:
    return prefix_loss(logits, prefix)[0]


def _everything(logits: Tensor, prefix: Prefix) -> Tensor:
    labels = prefix.sequence[:, :, 1:]
    labels = labels.masked_fill(labels >= CARD, -100)
    return F.cross_entropy(logits[:, :, :-1].flatten(0, 2), labels.flatten())


def _step(
    lm: nn.Module,
    optimizer: torch.optim.Optimizer,
    prefix: Prefix,
    step: int,
    loss_of: Callable[[Tensor, Prefix], Tensor] = _target,
    warm: Callable[[int, int], float] = lambda step, n: min(1.0, (step + 1) / n),
    clip: bool = True,
    clear: bool = True,
) -> float:
    if clear:
        optimizer.zero_grad()
    for group in optimizer.param_groups:
        group["lr"] = _config().learning_rate * warm(step, _config().warmup_steps)
    loss = loss_of(_logits(lm, prefix), prefix)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(lm.parameters(), _config().clip_norm)
    optimizer.step()
    return float(loss.detach())


def _trained(step_of: Callable, **options: Any) -> tuple[Tensor, list[float]]:
    """Weights after all steps, and the losses on the way."""
    lm = _tiny_lm()
    optimizer = _optimizer(lm)
    losses = [step_of(lm, optimizer, _batch(step), step, **options) for step in range(STEPS)]
    return _flat(lm), losses


def _go(
    lm: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    start: int,
    stop: int,
) -> None:
    """Steps with random numbers in them: codes of the target that do not count, half of them."""
    for step in range(start, stop):
        prefix = _batch(step)
        kept = torch.rand(prefix.loss_mask.shape, generator=generator) < 0.5
        optimizer.zero_grad()
        costs = F.cross_entropy(
            _logits(lm, prefix)[:, :, :-1][prefix.loss_mask[:, :, 1:]],
            prefix.sequence[:, :, 1:][prefix.loss_mask[:, :, 1:]],
            reduction="none",
        )
        (costs * kept[:, :, 1:][prefix.loss_mask[:, :, 1:]]).mean().backward()
        optimizer.step()


def _flat(lm: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in lm.parameters()])


def _alike(one: Any, other: Any) -> bool:
    """Whether two state dicts hold the same, to the last bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other) and one == other


def _rows(function: Callable, numbers: list[int], share: float, seed: int) -> Tensor:
    got = call(function, list(numbers), share, seed)
    compare(got, torch.zeros(len(numbers), dtype=torch.bool), "the rows", "[B]", atol=torch.inf)
    return got


def _scalar(got: Any) -> Any:
    return torch.tensor(float(got)) if isinstance(got, float | int) else got
