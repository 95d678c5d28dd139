"""Who hears what in a listening test: which pair, which side, in which order.

Listeners are numbers from 1. Their pages hang on (seed, listener) alone: with more listeners the
first ones keep theirs. Over listeners every combination is heard equally often, give or take one,
left as often as right, and on sheets in each place.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import StageLiteError


@dataclass(frozen=True)
class Trial:
    """One page: what one listener hears and answers at once."""

    id: str  # "3-07": listener 3, seventh page
    listener: int
    item: str | None  # None: loaded without the key
    systems: tuple[str, ...]  # left and right, or slider by slider; () without the key
    stimuli: tuple[Path, ...] = ()  # the sound files in the same order; () before they are written
    context: Path | None = None  # the music without the stem
    reference: Path | None = None  # of sheets: open to the listener


def plan_pairs(
    items: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    n_listeners: int,
    trials_per_listener: int | None = None,
    seed: int = 0,
) -> list[Trial]:
    """Pages of two.

    All combinations of item and pair stand in a circle in which neighbours are of different pairs;
    each listener takes the next `trials_per_listener` of it, in an order of their own. Left and
    right change from item to item and from one hearing of a combination to the next.

    Args:
        items: their ids, all different.
        pairs: of systems.
        n_listeners: from 1.
        trials_per_listener: None is all; a multiple of len(pairs) gives each listener every pair
            equally often.
        seed: of items in the circle, first sides and orders.
    """
    _check_plan(items, n_listeners, seed)
    if not pairs or any(len(pair) != 2 or pair[0] == pair[1] for pair in pairs):
        raise StageLiteError(f"pairs is {pairs!r}; expected at least one pair of two systems")
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise StageLiteError(f"pairs is {pairs!r}; expected every pair once, in either order")
    rng = np.random.default_rng([seed, 0])
    placed = [items[i] for i in rng.permutation(len(items))]
    first_sides = rng.integers(2, size=len(pairs))
    size = len(items) * len(pairs)
    count = _per_listener(trials_per_listener, size)
    trials = []
    for listener, places in _shares(n_listeners, count, seed):
        for page, place in enumerate(places, start=1):
            hearing, (row, p) = place // size, divmod(place % size, len(pairs))
            flip = (first_sides[p] + row + hearing) % 2
            systems = tuple(pairs[p])[:: -1 if flip else 1]
            item = placed[(row + p) % len(items)]
            trials.append(Trial(_trial_id(listener, page), listener, item, systems))
    return trials


def plan_sheets(
    items: Sequence[str],
    systems: Sequence[str],
    n_listeners: int,
    trials_per_listener: int | None = None,
    seed: int = 0,
) -> list[Trial]:
    """Pages of all systems; each hearing of an item moves every system on by one place.

    Arguments as in `plan_pairs`.
    """
    _check_plan(items, n_listeners, seed)
    if len(set(systems)) < max(2, len(systems)):
        raise StageLiteError(f"systems is {list(systems)!r}; expected at least two different ones")
    rng = np.random.default_rng([seed, 0])
    placed = [items[i] for i in rng.permutation(len(items))]
    orders = [[systems[i] for i in rng.permutation(len(systems))] for _ in items]
    count = _per_listener(trials_per_listener, len(items))
    trials = []
    for listener, places in _shares(n_listeners, count, seed):
        for page, place in enumerate(places, start=1):
            hearing, i = divmod(place, len(items))
            turn = hearing % len(systems)
            order = tuple(orders[i][turn:] + orders[i][:turn])
            trials.append(Trial(_trial_id(listener, page), listener, placed[i], order))
    return trials


def _shares(n_listeners: int, count: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Listener and the places that they hear, in their own order."""
    for listener in range(1, n_listeners + 1):
        order = np.random.default_rng([seed, listener]).permutation(count)
        yield listener, [(listener - 1) * count + int(i) for i in order]


def _trial_id(listener: int, page: int) -> str:
    return f"{listener}-{page:02d}"


def _check_plan(items: Sequence[str], n_listeners: int, seed: int) -> None:
    if not items:
        raise StageLiteError("a listening test got no items; expected at least one")
    twice = {item for item in items if list(items).count(item) > 1}
    if twice:
        raise StageLiteError(f"item {min(twice)!r} comes twice; expected different ids")
    if n_listeners < 1 or seed < 0:
        raise StageLiteError(
            f"n_listeners is {n_listeners} and seed is {seed}; expected whole numbers, from 1 and "
            "from 0"
        )


def _per_listener(trials_per_listener: int | None, most: int) -> int:
    if trials_per_listener is None:
        return most
    if not 1 <= trials_per_listener <= most:
        raise StageLiteError(
            f"trials_per_listener is {trials_per_listener}; expected 1 to {most}, which is all of "
            "them"
        )
    return trials_per_listener
