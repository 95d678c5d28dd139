"""FAD and KAD of a set of windows against a reference, with intervals by leaving songs out.

A bootstrap that draws songs with replacement puts equal rows into a set, which a distance between
sets sees as structure. The jackknife leaves out instead: each song once, or, of more than 20 songs,
each of 20 groups of songs once.

Source: Efron and Tibshirani 1993, An introduction to the bootstrap, ch. 11; Kott 2001, The
delete-a-group jackknife. Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..errors import StageLiteError
from .bootstrap import SongIds
from .frechet import fad, kad

GROUPS = 20  # of songs, at most
DISTANCES: dict[str, tuple[Callable, str]] = {
    f"{function.__name__}_{estimator}": (function, estimator)
    for function in (fad, kad)
    for estimator in ("biased", "unbiased")
}


def set_distance(
    name: str,
    reference: Float[ndarray, "m d"],
    rows: Float[ndarray, "n d"],
    song_ids: SongIds,
    seed: int = 0,
) -> dict[str, float]:
    """A distance of `DISTANCES` with its 95 % jackknife interval.

    The reference stays as it is: the interval says how the distance from this reference hangs on
    the songs that were evaluated. It takes the distance to be about normally distributed, which it
    is not near 0.

    Args:
        name: "fad_biased", "fad_unbiased", "kad_biased" or "kad_unbiased".
        reference: embeddings of real windows.
        rows: embeddings of the evaluated ones.
        song_ids: of each row.
        seed: of the subsets of the unbiased FAD, and of the groups.

    Returns:
        "value", "low" and "high"; the interval is NaN for one song, and where the distance cannot
        be had with a song less. A biased distance is never below 0, nor is its interval.

    Raises:
        StageLiteError: too few rows, rows that are not finite, ...: what fad and kad say.
    """
    function, estimator = DISTANCES[name]
    options = {"seed": seed} if function is fad else {}

    def distance(kept: ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kad asks whether fewer rows than columns are meant
            return function(reference, rows[kept], estimator=estimator, **options)

    everything = np.ones(len(rows), dtype=bool)
    value = distance(everything)
    groups = _groups(song_ids, seed)
    try:
        left = np.array([distance(groups != g) for g in np.unique(groups)])
    except StageLiteError:
        left = np.zeros(0)
    if len(left) < 2:
        return {"value": value, "low": np.nan, "high": np.nan}
    from scipy.stats import t

    variance = (len(left) - 1) / len(left) * np.square(left - left.mean()).sum()
    reach = float(t.ppf(0.975, len(left) - 1) * np.sqrt(variance))
    low = max(0.0, value - reach) if estimator == "biased" else value - reach
    return {"value": value, "low": low, "high": value + reach}


def _groups(song_ids: SongIds, seed: int) -> ndarray:
    """Of each row, the number of its group of songs."""
    songs, song = np.unique(list(song_ids), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(songs))
    return (order % GROUPS)[song]
