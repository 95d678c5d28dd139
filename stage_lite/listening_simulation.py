"""Listeners who do not exist: a listening test rehearsed before people are asked.

Their answers are files like those of people, so that the whole way to a result can be tried: does
the test have enough pages, do the statistics find what was put in?

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import StageLiteError
from .listening_answers import append_answer, read_answers

if TYPE_CHECKING:
    from pandas import DataFrame

    from .listening_test import ListeningTest


def simulate_answers(
    test: ListeningTest,
    folder: str | Path,
    quality: Callable[[str, str], float],
    *,
    listener_sd: float = 0.5,
    seed: int = 0,
) -> DataFrame:
    """Answers of simulated listeners to a test of pairs.

    A listener chooses the left clip with log odds `taste * (quality left - quality right)`; taste
    is a number of their own, drawn around 1.

    Args:
        test: of "pairs", with its key.
        folder: gets one CSV file per listener; must not hold answers yet.
        quality: (item, system) -> how good it is, in log odds: 1 more is chosen in 73 of 100.
        listener_sd: spread of the tastes; below 0 of taste someone prefers what is worse.
        seed: of tastes and choices.

    Returns:
        As `read_answers`.

    Raises:
        StageLiteError: another form, a test without its key, a quality that is no finite number,
            or a folder with answers.
    """
    folder = Path(folder)
    if test.form != "pairs" or test.trials[0].item is None:
        key = "no key" if test.trials[0].item is None else "its key"
        raise StageLiteError(
            f"the test is of form {test.form!r} and came with {key}; expected 'pairs' with its "
            "key, as load_listening_test(folder) reads it"
        )
    if folder.is_dir() and any(folder.glob("*.csv")):
        raise StageLiteError(
            f"{folder} holds answers already; expected a folder without any, so that simulated "
            "listeners are never taken for real ones"
        )
    rng = np.random.default_rng(seed)
    for listener in range(1, test.n_listeners + 1):
        taste = rng.normal(1.0, listener_sd)
        for trial in test.pages(listener):
            left, right = (float(quality(trial.item, system)) for system in trial.systems)
            odds = taste * (left - right)
            if not np.isfinite(odds):
                raise StageLiteError(
                    f"the quality of {trial.systems} in {trial.item!r} is {left} and {right}; "
                    "expected finite numbers"
                )
            choice = "left" if rng.random() < 1 / (1 + np.exp(-odds)) else "right"
            append_answer(folder / f"simulated-{listener:02d}.csv", test, trial.id, choice, 0.0)
    return read_answers(folder, test)
