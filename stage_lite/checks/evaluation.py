"""Checks of notebook 07: an interval over songs, Fréchet's distance, ranks.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .base import NotYet, accept, call, compare

ENDS = (0.025, 0.975)
LOOSE = 0.1  # of a width: 2000 resamples of one and the same interval differ by 0.02 or so
MANY = 20000  # resamples of what is right


def song_interval(function: Callable) -> None:
    """Exercise: a bootstrap over songs.

    Args:
        function: (scores Float[N], songs Int[N], generator) -> Float[2].
    """
    # Windows of one song are all alike here: eight of them know as much as one.
    songs = torch.arange(12).repeat_interleave(8)
    scores = torch.randn(12, generator=_generator(1))[songs]
    got = _ends(call(function, scores, songs, _generator(2)))
    _check_width(got[1] - got[0], {
        "": _width(_song_means(scores, songs)),
        "The interval is that of single windows, far too narrow: windows of one song are alike. "
        "Draw songs, and take all windows of each": _width(_window_means(scores)),
        "The interval holds 90 % of the means: cut 2.5 % off at each end, not 5 %":
            _width(_song_means(scores, songs), 0.05, 0.95),
        "The interval holds 95 % of the songs, not of the means of resamples: draw as many songs "
        "as there are, take the mean, and do that 2000 times":
            _width(scores),
    })  # fmt: skip
    # One song has most of the windows.
    songs = torch.cat([torch.zeros(40), torch.arange(1, 12).repeat_interleave(2)]).long()
    scores = torch.where(songs == 0, 3.0, 0.0) + torch.randn(62, generator=_generator(3))
    got = _ends(call(function, scores, songs, _generator(4)))
    means = _song_means(scores, songs)
    right = torch.quantile(means, torch.tensor(ENDS))
    each_once = torch.stack([scores[songs == song].mean() for song in range(12)])
    of_songs = torch.quantile(_window_means(each_once), torch.tensor(ENDS))
    if _near(got, of_songs) and not _near(right, of_songs):
        raise NotYet(
            "That is the mean of the songs' means, in which a window of a short song counts more "
            "than one of a long song. A song that is drawn brings all its windows: divide the sum "
            "of all scores by the number of all windows"
        )
    if not _near(got, right):
        raise NotYet(
            f"songs of 40 and of 2 windows: got {_shown(got)}, expected about {_shown(right)}"
        )
    accept(function, "an interval over songs, also where they have different numbers of windows")


def frechet(function: Callable) -> None:
    """Exercise: Fréchet's distance between two sets, taken for Gaussians.

    Args:
        function: (x Float[n, d], y Float[m, d]) -> Float[].
    """
    generator = _generator(6)
    mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    for n, m in ((40, 40), (30, 50)):  # of one size first: there swapped axes go through
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64) + 1
        y = torch.randn(m, 3, generator=generator, dtype=torch.float64) @ mixing
        (mx, sx), (my, sy) = (_moments(rows) for rows in (x, y))
        means, spread = (mx - my).square().sum(), sx.trace() + sy.trace()
        root = torch.linalg.eigvals(sx @ sy).real.clamp(min=0).sqrt().sum()
        mistakes = {
            "The first term is the squared distance of the means: no square root over it": (
                means.sqrt() + spread - 2 * root
            ),
            "The last trace counts twice: tr Sx + tr Sy - 2 tr (Sx Sy)^(1/2)": (
                means + spread - root
            ),
            "The root of a matrix is not the matrix of the roots. Its trace is the sum of the "
            "roots of the eigenvalues of Sx Sy": (
                means + spread - 2 * (sx @ sy).abs().sqrt().trace()
            ),
            "The root is missing: you subtracted twice the trace of Sx Sy itself": (
                means + spread - 2 * (sx @ sy).trace()
            ),
            "The means are missing": spread - 2 * root,
            "Only the means are there: two sets may differ in spread alone": means,
        }
        if n == m:
            mistakes |= {_AXES: _swapped(x, y), _AXES + " ": means + _swapped(x, y, means=False)}
        got = _scalar(call(function, x, y), "the distance")
        not_number = (sx @ sy).sqrt().trace().isnan() and got.isnan()
        if not_number:
            raise NotYet(
                "got nan: Sx Sy has negative entries, and their roots are no numbers. The root of "
                "a matrix is not the matrix of the roots: take the roots of its eigenvalues"
            )
        right = means + spread - 2 * root
        compare(got.double(), right, "the distance", "a single number", mistakes, atol=1e-4)
    accept(function, "the distance of the library, for sets of one size and of two")


def ranks_of_right(function: Callable) -> None:
    """Exercise: the rank of the right mix.

    Args:
        function: scores Float[N, N], of mix m (row) with stem s (column) -> Int[N].
    """
    random = torch.randn(6, 6, generator=_generator(7))
    for scores in (random, torch.full((4, 4), 0.5)):
        own = scores.diagonal()
        right = (scores >= own).sum(dim=0)
        order = scores.argsort(dim=0, descending=True)
        mistakes = {
            "You ranked stems for each mix (along the rows); here each stem looks for its mix, "
            "down its column: scores[:, s]": (scores >= own[:, None]).sum(dim=1),
            "argsort tells which mix stands in place m, not in which place mix m stands: count "
            "instead how many mixes score as high": order.diagonal() + 1,
            "argsort tells which mix stands in place m, and counts from 0: count how many mixes "
            "score as high": order.diagonal(),
            "The right mix wins every tie here, so a measure that says 0.5 of everything finds "
            "all. A tie is no find: count the others that score at least as high": (
                (scores > own).sum(dim=0) + 1
            ),
            "The first rank is 1, not 0: the right mix counts itself": right - 1,
            "Those are ranks from below: the highest score has rank 1": (scores <= own).sum(dim=0),
        }
        got = call(function, scores)
        compare(got, right, f"the ranks of {len(scores)} stems", "[N]", mistakes)
    accept(function, "each right mix has its rank, and ties are no finds")


# --- helpers -----------------------------------------------------------------------------------

_AXES = (
    "The axes are swapped: rows are clips and columns are dimensions, and the covariance is "
    "[d, d]. torch.cov wants it the other way round: torch.cov(x.T), and the mean is over rows"
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _song_means(scores: Tensor, songs: Tensor) -> Tensor:
    """Means of MANY resamples of songs."""
    n_songs = int(songs.max()) + 1
    sums = torch.zeros(n_songs).index_add(0, songs, scores)
    counts = songs.bincount()
    drawn = torch.randint(n_songs, (MANY, n_songs), generator=_generator(0))
    return sums[drawn].sum(1) / counts[drawn].sum(1)


def _window_means(scores: Tensor) -> Tensor:
    drawn = torch.randint(len(scores), (2000, len(scores)), generator=_generator(0))
    return scores[drawn].mean(-1)


def _width(means: Tensor, low: float = ENDS[0], high: float = ENDS[1]) -> Tensor:
    ends = torch.quantile(means, torch.tensor([low, high]))
    return ends[1] - ends[0]


def _check_width(got: Tensor, widths: Mapping[str, Tensor]) -> None:
    """The first of the widths is right, the others belong to mistakes."""
    right = widths[""]
    if abs(got - right) < LOOSE * right:
        return
    if got < 1e-3 * right:
        raise NotYet(
            "All resamples are the same, so the interval has no width: draw with replacement, so "
            "that some songs come twice and others not at all"
        )
    if got < 0:
        raise NotYet("high is below low; expected low first")
    for sentence, width in widths.items():
        if sentence and abs(got - width) < LOOSE * width:
            raise NotYet(sentence)
    raise NotYet(
        f"the interval is {got:.3f} wide; expected about {right:.3f}, from the 2.5th to the 97.5th "
        "percentile of the means of 2000 resamples"
    )


def _near(got: Tensor, right: Tensor) -> bool:
    return bool(((got - right).abs() < LOOSE * (right[1] - right[0])).all())


def _ends(got: Any) -> Tensor:
    """What a reader returned, as two finite numbers."""
    if got is None:
        raise NotYet("got None; expected low and high. Does the function end with `return ...`?")
    if isinstance(got, tuple | list) and len(got) == 2:
        raise NotYet(f"got a {type(got).__name__}; expected a tensor: torch.stack or torch.cat")
    if not isinstance(got, Tensor) or got.shape != (2,) or not got.is_floating_point():
        shape = f" {[*got.shape]} of {got.dtype}" if isinstance(got, Tensor) else ""
        raise NotYet(f"got a {type(got).__name__}{shape}; expected Float[2], low and high")
    if not got.isfinite().all():
        raise NotYet(
            f"got {[round(float(v), 3) for v in got]}; expected finite numbers: was something "
            "divided by 0?"
        )
    return got.detach().float()


def _scalar(got: Any, what: str) -> Tensor:
    if isinstance(got, int | float) and not isinstance(got, bool):
        got = torch.tensor(float(got))
    if isinstance(got, Tensor) and got.is_floating_point() and got.shape == (1,):
        got = got[0]
    if isinstance(got, Tensor) and got.is_floating_point() and not got.dim():
        return got.detach()
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    shape = f" {[*got.shape]} of {got.dtype}" if isinstance(got, Tensor) else ""
    raise NotYet(f"{what}: got a {type(got).__name__}{shape}; expected a single number")


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows.mean(0), rows.T.cov()


def _swapped(x: Tensor, y: Tensor, means: bool = True) -> Tensor:
    """The distance of the transposed sets, which has a value where they are of one size."""
    (mx, sx), (my, sy) = (_moments(rows.T) for rows in (x, y))
    roots = torch.linalg.eigvals(sx @ sy).real.clamp(min=0).sqrt().sum()
    return (mx - my).square().sum() * means + sx.trace() + sy.trace() - 2 * roots


def _shown(ends: Tensor) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"
