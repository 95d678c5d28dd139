"""Intervals by resampling songs: windows of one song are not independent, so they go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray


class Bootstrap:
    """95 % percentile intervals over the songs of a fixed list of windows.

    Args:
        song_ids: of each window; songs are drawn with replacement, each with all its windows.
        n_resamples: how often.
        seed: of the draws, which are the same for all columns: differences are paired.
    """

    def __init__(self, song_ids: Sequence[str], n_resamples: int = 4000, seed: int = 0):
        songs, place = np.unique(list(song_ids), return_inverse=True)
        draws = np.random.default_rng(seed).multinomial(
            len(songs), np.full(len(songs), 1 / len(songs)), size=n_resamples
        )
        self.n_songs = len(songs)
        self._counts = draws[:, place].astype(np.float64)  # [resamples, windows]

    def mean(self, column: Float[ndarray, "n"]) -> dict[str, float]:
        """Mean of one number per window, with its interval; NaN windows are left out."""
        return self.of(lambda a: a, column)

    def of(self, function: Callable[..., ndarray], *columns: Float[ndarray, "n"]) -> dict:
        """A function of the columns' means, such as a difference or a ratio.

        Returns:
            "value" of the windows as they are, "low" and "high" of the 95 % interval.
        """
        arrays = [np.asarray(column, dtype=np.float64) for column in columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = function(*(np.nanmean(a) for a in arrays))
            resampled = function(*(self._means(a) for a in arrays))
        known = resampled[~np.isnan(resampled)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        return {"value": float(value), "low": float(low), "high": float(high)}

    def _means(self, column: Float[ndarray, "n"]) -> Float[ndarray, "r"]:
        known = ~np.isnan(column)
        counts = self._counts[:, known]
        return counts @ column[known] / counts.sum(axis=1)


def shown(estimate: dict[str, float], digits: int = 2) -> str:
    """`0.71 [0.66, 0.76]`"""
    value, low, high = (f"{estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
