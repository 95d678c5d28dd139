"""How many listeners does a listening test of pairs need? Power, by simulated tests.

Each simulated test is judged as a real one is, by `stage_lite.clustered.preference`.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .clustered import preference
from .errors import StageLiteError

if TYPE_CHECKING:
    from pandas import DataFrame


def listening_power(
    share: float,
    n_items: int,
    n_listeners: Sequence[int] = (5, 10, 20, 50, 100),
    *,
    listener_sd: float = 0.5,
    item_sd: float = 0.5,
    alpha: float = 0.05,
    n_simulations: int = 300,
    seed: int = 0,
) -> DataFrame:
    """How often a test of pairs would find a preference that is there, by simulation.

    Each listener hears each item once, with one pair of systems.

    Args:
        share: of answers for the better system among all people and items, 0.5 to 1.
        n_items: that each listener hears.
        n_listeners: sizes of the class.
        listener_sd, item_sd: spread of listeners and of items in log odds: where the share is 0.73,
            0.5 more or less makes it 0.82 or 0.62.
        alpha: bound for p.
        n_simulations: tests played at each size; 300 give the power to about 0.05.

    Returns:
        A row per size: n_listeners, power (p_value at most alpha), power_interval (the interval of
        the share leaves out 0.5), smallest_p.
    """
    import pandas as pd
    from scipy.special import expit

    if not 0.5 <= share < 1 or n_items < 1 or not n_listeners or min(n_listeners) < 2:
        raise StageLiteError(
            f"share is {share}, n_items {n_items}, n_listeners {tuple(n_listeners)}; expected a "
            "share from 0.5 to below 1, at least one item and sizes from 2"
        )
    if min(listener_sd, item_sd) < 0 or n_simulations < 1:
        raise StageLiteError(
            f"listener_sd is {listener_sd}, item_sd {item_sd}, n_simulations {n_simulations}; "
            "expected spreads from 0 and at least one simulation"
        )
    centre = _centre(share, float(np.hypot(listener_sd, item_sd)))
    rows = []
    for size in n_listeners:
        rng = np.random.default_rng([seed, size])
        listeners, items = (g.ravel() for g in np.indices((size, n_items)))
        found = []
        for _ in range(n_simulations):
            lean = (
                rng.normal(0, listener_sd, size)[listeners] + rng.normal(0, item_sd, n_items)[items]
            )
            won = (rng.random(len(lean)) < expit(centre + lean)).astype(np.float64)
            result = preference(won, listeners, items)
            outside = not result["low"] <= 0.5 <= result["high"]
            found.append((result["p_value"] <= alpha, outside))
        power, power_interval = np.mean(found, axis=0)
        rows.append(
            {
                "n_listeners": size,
                "power": float(power),
                "power_interval": float(power_interval),
                "smallest_p": result["smallest_p"],
            }
        )
    return pd.DataFrame(rows)


def listeners_needed(
    share: float,
    n_items: int,
    power: float = 0.8,
    n_listeners: Sequence[int] = (6, 8, 10, 15, 20, 30, 50, 75, 100),
    **settings: float,
) -> int:
    """The smallest of some sizes of class at which `listening_power` reaches `power`.

    Raises:
        StageLiteError: none does; says how far the largest gets.
    """
    for size in sorted(n_listeners):
        table = listening_power(share, n_items, [size], **settings)
        if table["power"][0] >= power:
            return size
    raise StageLiteError(
        f"with {size} listeners and {n_items} items a share of {share} is found in "
        f"{table['power'][0]:.0%} of tests; expected {power:.0%}; p cannot fall below "
        f"{table['smallest_p'][0]:.3g} here; take more items, or aim at a larger difference"
    )


def _centre(share: float, spread: float) -> float:
    """Log odds of the middle listener, so that the mean over a normal spread is `share`."""
    from scipy import optimize, special

    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    return float(
        optimize.brentq(
            lambda mu: weights @ special.expit(mu + spread * nodes) - share,
            -20 - 20 * spread,
            20 + 20 * spread,
        )
    )
