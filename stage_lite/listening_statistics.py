"""What a class of 5 to 100 listeners has shown: shares, strengths, means, tests and power.

Answers of one listener are alike, and so are answers to one item; counting them as if they were
independent makes a difference look surer than it is. So:
- Intervals (95 %) hold for other listeners and other items: the variance is clustered both ways
  (listeners + items - both), never smaller than that of independent answers, and Student's t has
  one degree of freedom less than there are listeners or items, whichever are fewer. In simulations
  of 5 to 60 listeners with 8 to 12 items they held the truth in 93 to 100 % of tests, most often
  for few listeners, and where listeners and items hardly differ. (A bootstrap over listeners: about
  80 % for 5 of them, 20 to 85 % where items differ.)
- p-values: Wilcoxon's signed-rank test over the listeners' means (`p_listeners`: would others,
  hearing these items, agree?) and over the items' means (`p_items`: would these listeners agree
  about other items?). `p_value` is the larger one: both must be small. The test is exact, ties
  included. `p_holm` corrects for the number of comparisons in the table.
- With few listeners little can be shown: n of them cannot give a p below 2 / 2^n, which for 5 is
  0.0625 (`smallest_p`; items count alike). Then read the interval, which however assumes that
  means are about normal. How much a test of a size will find: stage_lite/listening_power.py.
- A difference whose interval holds 50 % (or 0) is not shown. That is no proof that there is none.

A system that is preferred in every answer leaves no spread to estimate; there each listener (or
item, if they are fewer) counts as one answer.

Source: Bradley and Terry 1952 (Biometrika 39); Clark 1973, listeners and items as random effects;
ITU-R BS.1534-3, post-screening; of the intervals: stage_lite/clustered.py.
Notebook: 07_evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .clustered import LEVEL, codes, freedom, holm, mean_tests, mean_variance, preference, two_way
from .errors import StageLiteError

if TYPE_CHECKING:
    from pandas import DataFrame

PAIR_COLUMNS = ("listener", "item", "winner", "loser")
SHEET_COLUMNS = ("listener", "item", "system", "rating")


# --- pairs ---------------------------------------------------------------------------------------


def pair_shares(answers: DataFrame) -> DataFrame:
    """How often one system was preferred to another.

    Args:
        answers: of "pairs", from `read_answers`; needs listener, item, winner, loser.

    Returns:
        A row per pair that was compared, names in alphabetical order: system, other, share (of
        answers in which `system` won), low, high, wins, n, listeners, items, p_listeners, p_items,
        p_value, p_holm, smallest_p. Of a pair that only one listener heard, low to smallest_p are
        NaN.

    Raises:
        StageLiteError: no answers, missing columns or cells, one listener only.
    """
    import pandas as pd

    _check(answers, PAIR_COLUMNS)
    rows = []
    names = sorted({*answers["winner"], *answers["loser"]})
    for system, other in itertools.combinations(names, 2):
        forwards = (answers["winner"] == system) & (answers["loser"] == other)
        backwards = (answers["winner"] == other) & (answers["loser"] == system)
        chosen = answers[forwards | backwards]
        if len(chosen):
            won = forwards[forwards | backwards].to_numpy(dtype=np.float64)
            outcome = preference(won, codes(chosen["listener"]), codes(chosen["item"]))
            rows.append({"system": system, "other": other} | outcome)
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("smallest_p"), "p_holm", holm(table["p_value"].to_numpy()))
    return table


def bradley_terry(answers: DataFrame) -> DataFrame:
    """One strength per system; one beats another with odds exp(its strength - the other's).

    The most likely strengths, with half a win each way added to every pair that was compared, so
    that a system which always wins stays finite. Of listeners who differ they describe the mean
    choice, which is less marked than the choice of each.

    Args:
        answers: as in `pair_shares`.

    Returns:
        A row per system, the strongest first: system, strength (log odds, mean 0), low, high, n.

    Raises:
        StageLiteError: as in `pair_shares`; systems that no chain of comparisons joins.
    """
    import pandas as pd
    from scipy import optimize, special, stats

    _check(answers, PAIR_COLUMNS)
    names = sorted({*answers["winner"], *answers["loser"]})
    place = {name: i for i, name in enumerate(names)}
    winner = answers["winner"].map(place).to_numpy()
    loser = answers["loser"].map(place).to_numpy()
    wins = np.zeros((len(names), len(names)))
    np.add.at(wins, (winner, loser), 1.0)
    _check_joined(wins + wins.T, names)
    wins += 0.5 * (wins + wins.T > 0)

    def loss(strengths: ndarray) -> tuple[float, ndarray]:
        ahead = strengths[:, None] - strengths
        surprise = wins * special.expit(-ahead)  # [S, S]
        value = -(wins * special.log_expit(ahead)).sum()
        return value, surprise.sum(axis=0) - surprise.sum(axis=1)

    found = optimize.minimize(loss, np.zeros(len(names)), jac=True, method="BFGS")
    strengths = found.x - found.x.mean()
    chance = special.expit(strengths[:, None] - strengths)
    weight = (wins + wins.T) * chance * chance.T
    information = np.diag(weight.sum(axis=1)) - weight
    model = np.linalg.pinv(information)  # what it would be if answers were independent
    scores = np.zeros((len(answers), len(names)))
    rest = 1.0 - chance[winner, loser]
    scores[np.arange(len(answers)), winner] = rest
    scores[np.arange(len(answers)), loser] = -rest
    listeners, items = codes(answers["listener"]), codes(answers["item"])
    clustered = model @ two_way(scores, listeners, items) @ model
    error = np.sqrt(np.maximum(np.diag(clustered), np.diag(model)))
    half = error * stats.t.ppf((1 + LEVEL) / 2, freedom(listeners, items))
    table = pd.DataFrame(
        {
            "system": names,
            "strength": strengths,
            "low": strengths - half,
            "high": strengths + half,
            "n": np.bincount(np.concatenate([winner, loser]), minlength=len(names)),
        }
    )
    return table.sort_values("strength", ascending=False, ignore_index=True)


# --- sheets --------------------------------------------------------------------------------------


def sheet_means(ratings: DataFrame) -> DataFrame:
    """Mean rating of each system.

    Args:
        ratings: of "sheets", from `read_answers`; needs listener, item, system, rating.

    Returns:
        A row per system, the best first: system, mean, low, high, n, listeners, items.

    Raises:
        StageLiteError: no ratings, missing columns or cells, a rating outside 0 to 100, a listener
            who rated a system twice for an item or did not rate all, one listener only.
    """
    import pandas as pd
    from scipy import stats

    rows = []
    for system, chosen in _check_ratings(ratings).groupby("system", sort=True):
        listeners, items = codes(chosen["listener"]), codes(chosen["item"])
        rating = chosen["rating"].to_numpy(dtype=np.float64)
        error = np.sqrt(mean_variance(rating, listeners, items))
        half = error * stats.t.ppf((1 + LEVEL) / 2, freedom(listeners, items))
        mean = rating.mean()
        rows.append(
            {
                "system": system,
                "mean": mean,
                "low": max(0.0, mean - half),
                "high": min(100.0, mean + half),
                "n": len(rating),
                "listeners": listeners.max() + 1,
                "items": items.max() + 1,
            }
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


def sheet_differences(ratings: DataFrame) -> DataFrame:
    """Paired differences of ratings on the same page.

    Args:
        ratings: as in `sheet_means`.

    Returns:
        A row per pair, names in alphabetical order: system, other, difference (of means), low,
        high, n, listeners, items, p_listeners, p_items, p_value, p_holm, smallest_p.
    """
    import pandas as pd
    from scipy import stats

    wide = _check_ratings(ratings).pivot(
        index=["listener", "item"], columns="system", values="rating"
    )
    index = wide.index.to_frame(index=False)
    listeners, items = codes(index["listener"]), codes(index["item"])
    rows = []
    for system, other in itertools.combinations(wide.columns, 2):
        differences = (wide[system] - wide[other]).to_numpy(dtype=np.float64)
        error = np.sqrt(mean_variance(differences, listeners, items))
        half = error * stats.t.ppf((1 + LEVEL) / 2, freedom(listeners, items))
        mean = differences.mean()
        rows.append(
            {"system": system, "other": other, "difference": mean}
            | {"low": mean - half, "high": mean + half, "n": len(differences)}
            | mean_tests(differences, listeners, items)
        )
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("smallest_p"), "p_holm", holm(table["p_value"].to_numpy()))
    return table


def friedman(ratings: DataFrame) -> DataFrame:
    """Do the systems differ at all? Friedman's test over the listeners' means (SciPy).

    Args:
        ratings: as in `sheet_means`, of at least three systems.

    Returns:
        One row: statistic, p_value (chi-squared, too large rather than too small for few
        listeners), systems, listeners. Items count as given: nothing is said of others.
    """
    import pandas as pd
    from scipy import stats

    means = _check_ratings(ratings).pivot_table("rating", "listener", "system", aggfunc="mean")
    if means.shape[1] < 3:
        raise StageLiteError(
            f"friedman got {means.shape[1]} systems; expected at least 3; two are compared by "
            "sheet_differences"
        )
    rounded = means.to_numpy(dtype=np.float64).round(9)
    statistic, p_value = 0.0, 1.0
    if (rounded != rounded[:, :1]).any():  # else there are only ties, and SciPy divides by 0
        statistic, p_value = stats.friedmanchisquare(*rounded.T)
    row = {"statistic": float(statistic), "p_value": float(p_value)}
    return pd.DataFrame([row | {"systems": means.shape[1], "listeners": len(means)}])


def screen_listeners(
    ratings: DataFrame, reference: str, below: float = 90.0, share: float = 0.15
) -> DataFrame:
    """Who didn't hear the hidden reference: BS.1534's post-screening. Nobody is left out by this.

    Args:
        ratings: as in `sheet_means`; one listener is enough.
        reference: name of the hidden reference.
        below, share: a listener fails who rated it below 90 for more than 15 % of the items.

    Returns:
        A row per listener: listener, items, share_below, fails. Who wants them out passes the
        failing ones to `leave_out`, and says so next to the result.
    """
    import pandas as pd

    ratings = _check_ratings(ratings, least_listeners=1)
    if reference not in set(ratings["system"]):
        raise StageLiteError(
            f"reference is {reference!r}; expected one of {sorted(set(ratings['system']))}"
        )
    rows = []
    for listener, chosen in ratings[ratings["system"] == reference].groupby("listener", sort=True):
        part = float((chosen["rating"] < below).mean())
        rows.append(
            {
                "listener": listener,
                "items": len(chosen),
                "share_below": part,
                "fails": part > share,
            }
        )
    return pd.DataFrame(rows)


def leave_out(answers: DataFrame, listeners: Iterable[int]) -> DataFrame:
    """The answers, of either form, without some listeners."""
    listeners = set(listeners)
    unknown = listeners - set(answers["listener"])
    if unknown:
        raise StageLiteError(
            f"listener {min(unknown)!r} gave no answers; expected some of "
            f"{sorted(set(answers['listener']))}"
        )
    return answers[~answers["listener"].isin(listeners)].reset_index(drop=True)


# --- checks --------------------------------------------------------------------------------------


def _check(answers: DataFrame, columns: Sequence[str], least_listeners: int = 2) -> None:
    missing = [name for name in columns if name not in getattr(answers, "columns", ())]
    if missing:
        raise StageLiteError(
            f"the answers have no column {missing[0]!r}; expected {', '.join(columns)}, as "
            "stage_lite.listening_answers.read_answers returns them"
        )
    if not len(answers):
        raise StageLiteError("there are no answers; expected at least one of two listeners")
    empty = answers[list(columns)].isna()
    if empty.to_numpy().any():
        row, column = np.argwhere(empty.to_numpy())[0]
        raise StageLiteError(
            f"row {row} of the answers has no {columns[column]}; expected all cells filled"
        )
    n_listeners = answers["listener"].nunique()
    if n_listeners < least_listeners:
        raise StageLiteError(
            f"the answers are of {n_listeners} listener; expected at least {least_listeners}: one "
            "says nothing about others"
        )


def _check_ratings(ratings: DataFrame, least_listeners: int = 2) -> DataFrame:
    _check(ratings, SHEET_COLUMNS, least_listeners)
    outside = ratings[~ratings["rating"].between(0, 100)]
    if len(outside):
        raise StageLiteError(f"a rating is {outside['rating'].iloc[0]}; expected 0 to 100")
    cells = ratings.groupby(["listener", "item"])["system"]
    systems = ratings["system"].nunique()
    for (listener, item), count in cells.agg(["count", "nunique"]).iterrows():
        if count["count"] != count["nunique"] or count["nunique"] != systems:
            raise StageLiteError(
                f"listener {listener} gave {count['count']} ratings to {count['nunique']} of "
                f"{systems} systems for item {item!r}; expected each once; take the page out"
            )
    return ratings


def _check_joined(compared: Float[ndarray, "s s"], names: Sequence[str]) -> None:
    from scipy.sparse.csgraph import connected_components

    groups, label = connected_components(compared > 0, directed=False)
    if groups > 1:
        first, second = (
            [name for name, at in zip(names, label, strict=True) if (at == 0) == wanted]
            for wanted in (True, False)
        )
        raise StageLiteError(
            f"no answer compares one of {first} with one of {second}, not even through others; "
            "expected comparisons that join all systems"
        )
