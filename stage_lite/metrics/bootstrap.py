"""How sure is a mean over windows? Intervals by resampling songs, and a paired test over songs.

Windows of one song are alike, so they are not independent: what is drawn, or whose sign is tossed,
is always a whole song. A hundred windows of two songs are two observations.

NaN marks a window that has no score (silence has no tempo); it is left out, with its partner.

Source: Efron and Tibshirani 1993, An introduction to the bootstrap, ch. 13 (percentile intervals),
ch. 15 (permutation tests). Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from ..errors import StageLiteError

Column = Shaped[ndarray, "_"] | Sequence[float]  # one number per window
SongIds = Shaped[ndarray, "_"] | Sequence[str]  # one per window
LEAST_SONGS = 2  # for an interval or a test


class Bootstrap:
    """95 % percentile intervals over the songs of a fixed list of windows.

    Args:
        song_ids: of each window; songs are drawn with replacement, each with all its windows.
        n_resamples: how often.
        seed: of the draws, which are the same for all columns: differences are paired.

    Raises:
        StageLiteError: no windows.
    """

    def __init__(self, song_ids: SongIds, n_resamples: int = 4000, seed: int = 0):
        songs, self._song = _songs(song_ids)
        draws = np.random.default_rng(seed).multinomial(
            len(songs), np.full(len(songs), 1 / len(songs)), size=n_resamples
        )
        self.n_songs = len(songs)
        self._counts = draws[:, self._song].astype(np.float64)  # [resamples, windows]

    def mean(self, column: Column) -> dict[str, float]:
        """Mean of one number per window, with its interval; NaN windows are left out."""
        return self.of(lambda a: a, column)

    def of(self, function: Callable[..., ndarray], *columns: Column) -> dict[str, float]:
        """A function of the columns' means, such as a difference or a ratio.

        Args:
            function: of as many arrays as there are columns; it gets means, one or many at once.
            columns: one number per window each. NaN is left out of its own column only: where two
                columns have different gaps, their difference is one between different windows;
                take `mean` of the differences instead.

        Returns:
            "value" of the windows as they are, "low" and "high" of the 95 % interval: NaN where
            fewer than two songs have a number, of which nothing is known beyond the windows.

        Raises:
            StageLiteError: a column that is not one number per window.
        """
        arrays = [_column(column, len(self._song)) for column in columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = function(*(_mean(a) for a in arrays))
            resampled = np.asarray(function(*(self._means(a) for a in arrays)))
        known = resampled[~np.isnan(resampled)]
        n_songs = min((len(np.unique(self._song[~np.isnan(a)])) for a in arrays), default=0)
        low, high = (
            np.percentile(known, [2.5, 97.5])
            if len(known) and n_songs >= LEAST_SONGS
            else (np.nan, np.nan)
        )
        return {"value": float(value), "low": float(low), "high": float(high)}

    def _means(self, column: Float[ndarray, "n"]) -> Float[ndarray, "r"]:
        known = ~np.isnan(column)
        counts = self._counts[:, known]
        return counts @ column[known] / counts.sum(axis=1)


def paired_test(
    a: Column, b: Column, song_ids: SongIds, n_resamples: int = 9999, seed: int = 0
) -> float:
    """p that two systems, heard on the same windows, differ by chance: a sign-flip test over songs.

    If the systems are alike, then in each song either could as well have been the other, so each
    song's mean difference could as well have the other sign. p is the share of all sign patterns
    whose mean over songs is at least as far from 0 as the one seen (two-sided). Nothing is assumed
    of the scores' distribution; each song counts once, however many windows it has (in
    `Bootstrap.mean` each window counts once).

    With n songs p cannot be below 2 / 2 ** n: five songs never reach 0.05. Of several tests in one
    table, one in twenty is below 0.05 by chance alone.

    Args:
        a, b: one score per window, of the two systems; a window with NaN in either is left out.
        song_ids: of each window.
        n_resamples: exact, over all 2 ** n patterns, if there are no more of them than this (13
            songs by default); else so many random ones, and p is at least 2 / (n_resamples + 1).
        seed: of the random ones.

    Returns:
        p in (0, 1]; 1 if the systems never differ.

    Raises:
        StageLiteError: columns that are not one number per window, or fewer than two songs in
            which both systems have a score.
    """
    from scipy.stats import permutation_test

    songs, song = _songs(song_ids)
    differences = _column(a, len(song)) - _column(b, len(song))
    known = ~np.isnan(differences)
    counts = np.bincount(song[known], minlength=len(songs))
    sums = np.bincount(song[known], weights=differences[known], minlength=len(songs))
    per_song = sums[counts > 0] / counts[counts > 0]
    if len(per_song) < LEAST_SONGS:
        raise StageLiteError(
            f"{len(per_song)} of {len(songs)} song{'s' * (len(songs) != 1)} with a score of both "
            f"systems; expected at least {LEAST_SONGS}: windows of one song are one observation, "
            "and nothing can be tested on one; take windows of more songs"
        )
    found = permutation_test(
        (per_song,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def shown(estimate: dict[str, float], digits: int = 2) -> str:
    """`0.71 [0.66, 0.76]`"""
    value, low, high = (f"{estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _songs(song_ids: SongIds) -> tuple[ndarray, ndarray]:
    """The songs, and of each window the number of its song."""
    ids = list(song_ids)
    if not ids:
        raise StageLiteError("got no windows; expected the song id of each, at least one")
    return np.unique(ids, return_inverse=True)


def _column(column: Column, n_windows: int) -> Float[ndarray, "n"]:
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise StageLiteError(
            f"a column is {column!r}; expected one number per window, NaN for none"
        ) from None
    if values.shape != (n_windows,) or np.isinf(values).any():
        what = "infinite numbers" if np.isinf(values).any() else f"shape {values.shape}"
        raise StageLiteError(
            f"a column has {what}; expected one number, or NaN, for each of the {n_windows} windows"
        )
    return values


def _mean(column: Float[ndarray, "n"]) -> float:
    known = column[~np.isnan(column)]
    return known.mean() if len(known) else np.nan
