"""Checks of the exercises on attention.

Notebook: 06_attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import NotYet, accept, call, compare


def head_weights(function: Callable) -> None:
    """Exercise: how much each step looks at each step up to itself, in one head.

    Args:
        function: (queries Float[S, d], keys Float[S, d]) -> Float[S, S].
    """
    generator = torch.Generator().manual_seed(11)
    for n_steps, width in ((2, 3), (5, 4), (9, 16)):
        queries, keys = 1.5 * torch.randn(2, n_steps, width, generator=generator)
        scores = queries @ keys.T
        future = torch.ones(n_steps, n_steps, dtype=torch.bool).triu(1)

        def weights(scores: Tensor, hidden: Tensor = future, axis: int = -1) -> Tensor:
            return scores.masked_fill(hidden, -torch.inf).softmax(axis)

        right = weights(scores / width**0.5)
        open_ended = (scores / width**0.5).softmax(-1)
        without_itself = weights(scores / width**0.5, future | torch.eye(n_steps).bool())
        mistakes = {
            "The future is visible: in row s, columns behind s must be -inf before the softmax": (
                open_ended
            ),
            "Each row must sum to 1. Yours was masked after the softmax, which takes some away: "
            "set the scores of the future to -inf before it": open_ended.masked_fill(future, 0.0),
            "The scores of the future are 0, which is no small score: use -inf": (
                (scores / width**0.5).masked_fill(future, 0.0).softmax(-1)
            ),
            "The scores are not divided by the square root of d": weights(scores),
            "The scores are divided by d; expected the square root of d": weights(scores / width),
            "Columns sum to 1, and rows should: who looks is a row, so softmax(dim=-1)": weights(
                scores / width**0.5, axis=0
            ),
            "Rows and columns have changed places: row s is the query of step s": weights(
                scores.T / width**0.5
            ),
            "The past is hidden and the future visible: triu(1) is what to hide, not tril": weights(
                scores / width**0.5, future.T
            ),
            "Those are scores: a softmax makes them parts of 1": (
                (scores / width**0.5).masked_fill(future, -torch.inf)
            ),
        }
        got = call(function, queries, keys)
        if isinstance(got, Tensor) and same_nan(got, without_itself):
            raise NotYet("A step sees itself, too: hide the columns from s + 1 on")
        compare(got, right, f"the weights of {n_steps} steps", "[S, S]", mistakes)
    accept(function, "every row sums to 1 and looks at nothing that is still to come")


def diagonal_share(function: Callable) -> None:
    """Exercise: of what a head gives to the context, the part near the target's own time.

    Args:
        function: (frames Float[T, Tc], near_frames) -> float, or Float[].
    """
    generator = torch.Generator().manual_seed(12)
    for n_target, n_context, near in ((4, 4, 0), (6, 6, 1), (5, 9, 2)):
        # rows of unequal sum, as heads have them, and a rest that goes elsewhere
        frames = torch.rand(n_target, n_context, generator=generator) ** 2
        frames = frames * torch.rand(n_target, 1, generator=generator) / n_context
        lag = torch.arange(n_context) - torch.arange(n_target)[:, None]  # [T, Tc]
        band = lag.abs() <= near
        hit, total = frames * band, frames.sum()
        right = hit.sum() / total
        mistakes = {
            "That is the mean over rows of each row's share: a frame that gives the context next "
            "to nothing then counts as much as any other. Sum first, divide then": (
                (hit.sum(1) / frames.sum(1)).mean()
            ),
            "Divide by what the head gives to the context, not by the number of frames: else a "
            "head that looks elsewhere most of the time cannot be aligned": hit.sum() / n_target,
            "That is what lies near the diagonal; divide it by all that goes to the context": (
                hit.sum()
            ),
            "Only what is later counts: near is earlier and later, so take abs()": (
                (hit * (lag >= 0)).sum() / total
            ),
            "Only what is earlier counts: near is earlier and later, so take abs()": (
                (hit * (lag <= 0)).sum() / total
            ),
            "A lag of near_frames is near, too: <=, not <": (
                (frames * (lag.abs() < near)).sum() / total
            ),
            "That is the share of the fields near the diagonal: weigh them by the attention": (
                band.float().mean()
            ),
            "That is what lies off the diagonal": 1 - right,
        }
        got = call(function, frames, near)
        compare(
            _scalar(got), right, f"T = {n_target}, Tc = {n_context}, near_frames = {near}",
            "[], one number", mistakes,
        )  # fmt: skip
    accept(function, "the library scores heads in the same way")


def cut_head(function: Callable) -> None:
    """Exercise: a layer's output matrix that no longer reads one head.

    Args:
        function: (matrix Float[dim, dim], head, n_heads) -> Float[dim, dim].
    """
    generator = torch.Generator().manual_seed(13)
    for dim, n_heads, head in ((6, 2, 1), (12, 3, 1), (8, 4, 0)):
        matrix = torch.randn(dim, dim, generator=generator)
        width = dim // n_heads
        own = slice(head * width, (head + 1) * width)

        def without(columns: Any, rows: Any = slice(None), matrix: Tensor = matrix) -> Tensor:
            left = matrix.clone()
            left[rows, columns] = 0
            return left

        mistakes = {
            "Rows are cut: that silences a part of what the layer says, whichever head it came "
            "from. What a head says is read by columns": without(slice(None), own),
            "Only the square where rows and columns meet is cut; the head is read by whole "
            "columns": without(own, own),
            "Every n_heads-th column is cut. A head's columns stand side by side: width = dim // "
            "n_heads of them": without(slice(head, None, n_heads)),
            "One column is cut; a head has dim // n_heads of them": without(head),
            "All heads but this one are cut": matrix - without(own),
            "Another head's columns are cut: they begin at head * width, counted from 0": without(
                slice((head - 1) * width, head * width) if head else slice(width, 2 * width)
            ),
            "The columns are taken out; set them to 0, so that the others keep their places": (
                torch.cat([matrix[:, : own.start], matrix[:, own.stop :]], 1)
            ),
            "Nothing is cut": matrix,
        }
        got = call(function, matrix, head, n_heads)
        what = f"head {head} of {n_heads} cut out of a {dim} by {dim} matrix"
        compare(got, without(own), what, "[dim, dim]", mistakes)
    accept(function, "the layer no longer hears this head, and all the others as before")


# --- helpers -----------------------------------------------------------------------------------


def same_nan(got: Tensor, expected: Tensor) -> bool:
    """Whether two tensors agree, not-a-numbers included."""
    return got.shape == expected.shape and torch.allclose(
        got.double(), expected.double(), atol=1e-5, equal_nan=True
    )


def _scalar(got: Any) -> Any:
    return torch.tensor(got) if isinstance(got, float) else got
