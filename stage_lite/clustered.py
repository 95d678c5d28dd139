"""Intervals and tests for answers that are not independent: of one listener, or to one item.

Variances are clustered both ways: by listeners, plus by items, minus by both, and are never smaller
than those of independent answers. Student's t has one degree of freedom less than there are
listeners or items, whichever are fewer. Here clusters are numbers from 0, see `codes`. What it is
for and how well it holds: stage_lite/listening_statistics.py.

Source: Cameron, Gelbach and Miller 2011, two-way clustering (J. Bus. Econ. Stat. 29); Korn and
Graubard 1998, intervals for shares (Surv. Methodol. 24).
Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

LEVEL = 0.95


def signed_rank_p(values: Float[ndarray, "n"] | Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact for any ties; zeros are left out.

    SciPy's is exact with ties only where it counts all 2^n signs, which takes a second for n = 13.
    Here the distribution is built rank by rank: each doubles what is there, shifted.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64).round(9)  # 0.7 - 0.5 and 0.5 - 0.3 are a tie
    values = values[values != 0]
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)  # of ties they are halves
    chance = np.ones(1)
    for rank in ranks:
        step = np.zeros(len(chance) + rank)
        step[: len(chance)] += chance / 2
        step[rank:] += chance / 2
        chance = step
    positive = int(ranks[values > 0].sum())
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))


def holm(p_values: Sequence[float] | ndarray) -> Float[ndarray, "n"]:
    """p-values corrected for their number (Holm 1979); NaN ones are not counted."""
    p_values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p_values.shape, np.nan)
    order = [i for i in np.argsort(p_values) if not np.isnan(p_values[i])]
    steps = [p_values[i] * (len(order) - rank) for rank, i in enumerate(order)]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order else []
    return corrected


def preference(
    won: Float[ndarray, "n"], listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]
) -> dict[str, float]:
    """Share of wins (1, else 0) with its interval and tests; listeners and items from `codes`."""
    share = float(won.mean())
    tests = mean_tests(won - 0.5, listeners, items)
    low = high = np.nan
    if tests["listeners"] > 1:
        low, high = share_interval(won, listeners, items)
    outcome = {"share": share, "low": low, "high": high, "wins": int(won.sum()), "n": len(won)}
    return outcome | tests


def share_interval(
    won: Float[ndarray, "n"], listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]
) -> tuple[float, float]:
    """Korn and Graubard: Clopper and Pearson's interval for as many answers as these are worth."""
    from scipy import stats

    share, n, tail = won.mean(), len(won), (1 + LEVEL) / 2
    degrees = freedom(listeners, items)
    if share in (0.0, 1.0):
        worth = float(degrees + 1)
    else:
        worth = share * (1 - share) / mean_variance(won, listeners, items)
        worth *= (stats.t.ppf(tail, max(1, n - 1)) / stats.t.ppf(tail, degrees)) ** 2
        worth = min(worth, float(n))
    wins = share * worth
    low = stats.beta.ppf(1 - tail, wins, worth - wins + 1) if share > 0 else 0.0
    high = stats.beta.ppf(tail, wins + 1, worth - wins) if share < 1 else 1.0
    return float(low), float(high)


def mean_tests(
    values: Float[ndarray, "n"], listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]
) -> dict[str, float]:
    """Is the mean 0, over listeners and over items?"""
    n_listeners, n_items = int(listeners.max()) + 1, int(items.max()) + 1
    p_listeners = signed_rank_p(_means(values, listeners))
    p_items = signed_rank_p(_means(values, items))
    tests = {
        "p_listeners": p_listeners,
        "p_items": p_items,
        "p_value": max(p_listeners, p_items),
        "smallest_p": 2.0 ** (1 - min(n_listeners, n_items)),
    }
    if n_listeners < 2:
        tests = dict.fromkeys(tests, np.nan)
    return {"listeners": n_listeners, "items": n_items} | tests


def _means(values: Float[ndarray, "n"], clusters: Int[ndarray, "n"]) -> Float[ndarray, "m"]:
    return np.bincount(clusters, values) / np.bincount(clusters)


def mean_variance(
    values: Float[ndarray, "n"], listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]
) -> float:
    """Variance of the mean, for other listeners and items, at least that of independent answers."""
    n = len(values)
    rest = (values - values.mean())[:, None]
    both = float(two_way(rest, listeners, items)[0, 0])
    alone = float((rest**2).sum()) * n / max(1, n - 1)
    return max(both, alone) / n**2


def two_way(
    scores: Float[ndarray, "n d"], listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]
) -> Float[ndarray, "d d"]:
    """Covariance of the sum of the scores: by listeners, plus by items, minus by both."""
    total = _one_way(scores, listeners)
    if items.max() > 0:
        cells = codes(listeners * (int(items.max()) + 1) + items)
        total = total + _one_way(scores, items) - _one_way(scores, cells)
    return total


def _one_way(scores: Float[ndarray, "n d"], clusters: Int[ndarray, "n"]) -> Float[ndarray, "d d"]:
    count = int(clusters.max()) + 1
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, clusters, scores)
    return sums.T @ sums * count / (count - 1)


def freedom(listeners: Int[ndarray, "n"], items: Int[ndarray, "n"]) -> int:
    """Degrees of freedom; a single item is taken as given."""
    return int(min(listeners.max(), items.max() or listeners.max()))


def codes(column: Iterable) -> Int[ndarray, "n"]:
    """Names as 0, 1, 2, ..."""
    return np.unique(np.asarray(column), return_inverse=True)[1]
