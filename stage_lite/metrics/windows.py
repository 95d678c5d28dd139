"""Which windows of a data set are evaluated, who lends whom a context, and what is the reference.

Drawn in one seeded order:

    w w w w w w w w w w w w w w ...
    |  evaluated  |  reference of FAD and KAD: windows that overlap with none of those

The floor of each window is the context, and the stem, of one window of another song: its lender.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np

from ..errors import StageLiteError
from ..examples import Example, lenders
from .reference import check_reference

FEWEST_BEATS = 4  # in a window: below, there is nothing to keep to
TRIES = 4  # windows looked at for each that is asked for
NO_CONTEXT, FEW_BEATS, SILENT = "no context", f"fewer than {FEWEST_BEATS} beats", "silent stem"


@dataclass(frozen=True)
class Windows:
    """What an evaluation is about.

    Attributes:
        examples: the windows, all of one length; at most half of them, per target, of one song.
        lenders: of each window, the number of the one of another song and the same target whose
            context it gets for the floor. Everyone lends once.
        reference: further windows, none of which overlaps with those above.
        left_out: reason -> how many windows were passed over for it.
    """

    examples: list[Example]
    lenders: list[int]
    reference: list[Example]
    left_out: dict[str, int]

    @property
    def song_ids(self) -> list[str]:
        return [e.song_id for e in self.examples]


def draw_windows(
    dataset: Sequence,
    n: int,
    seed: int,
    is_silent: Callable[[Example], bool],
    n_reference: int,
) -> Windows:
    """The first n usable windows in a seeded order, and up to `n_reference` others behind them.

    Args:
        dataset: of Examples: StemDataset, ShardDataset, a list.
        n: windows; fewer come out if the data set holds fewer that can be used.
        seed: of the order.
        is_silent: tells whether the target of an example is.
        n_reference: windows for the reference.

    Raises:
        StageLiteError: n below 2, no data set, an empty one or one of fewer than n windows, no
            window with a context, beats and sound, all windows of a target of one song, or windows
            of different lengths or sample rates.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 2:
        raise StageLiteError(
            f"n is {n!r}; expected a whole number of windows of at least 2: one window has no "
            "other song to be compared with, and no interval"
        )
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise StageLiteError(f"seed is {seed!r}; expected a whole number from 0")
    if isinstance(dataset, str | Path) or not hasattr(dataset, "__len__"):
        raise StageLiteError(
            f"the data set is {dataset!r:.80}; expected a data set, such as "
            "StemDataset('a folder of songs', 'drums'), or a list of stage_lite.Example"
        )
    total = len(dataset)
    if not total:
        raise StageLiteError("the data set is empty; expected windows of at least two songs")
    if total < n:
        raise StageLiteError(
            f"the data set has {total} windows; expected at least n = {n}; pass n={total}, or a "
            f"longer data set: StemDataset(..., n={4 * n}) draws as many windows as you ask for"
        )
    order = iter(np.random.default_rng(seed).permutation(total)[: 2 * TRIES * n].tolist())
    examples, left_out = _evaluated(dataset, order, n, is_silent)
    reference = _reference(dataset, order, examples, n_reference, is_silent)
    _check_alike(examples)
    return Windows(examples, _lenders(examples), reference, left_out)


def name_of(example: Example) -> str:
    """How messages call a window."""
    target = example.target_name or "the target"
    return f"{target} of {example.song_id!r} at {example.start_s:.2f} s"


def _evaluated(
    dataset: Sequence, order: Iterator[int], n: int, is_silent: Callable[[Example], bool]
) -> tuple[list[Example], dict[str, int]]:
    left_out = dict.fromkeys((NO_CONTEXT, FEW_BEATS, SILENT), 0)
    examples: list[Example] = []
    per_song: Counter = Counter()
    seen: set[tuple] = set()
    for _ in range(TRIES * n):
        place = next(order, None) if len(examples) < n else None
        if place is None:
            break
        example = dataset[place]
        _check(example, place)
        song = (example.target_name, example.song_id)
        if (*song, example.start_s) in seen:  # drawn twice
            continue
        seen.add((*song, example.start_s))
        if per_song[song] >= n // 2:  # its others would find no context of another song
            continue
        if len(example.beat_times):
            name = f"beat_times of {name_of(example)}"
            check_reference(example.beat_times, example.duration_s, name)
        reason = None
        if example.context is None and example.context_codes is None:
            reason = NO_CONTEXT
        elif len(example.beat_times) < FEWEST_BEATS:
            reason = FEW_BEATS
        elif is_silent(example):
            reason = SILENT
        if reason:
            left_out[reason] += 1
            continue
        examples.append(example)
        per_song[song] += 1
    if not examples:
        seen = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        way_out = "take another data set"
        if left_out[NO_CONTEXT] == sum(left_out.values()):
            way_out = "give the data set conditions=, such as 'mixture' or 'metronome'"
        raise StageLiteError(
            f"none of {sum(left_out.values())} windows can be evaluated ({seen}); expected a "
            f"context, {FEWEST_BEATS} beats and a target that is heard; {way_out}"
        )
    return _balanced(examples), left_out


def _balanced(examples: list[Example]) -> list[Example]:
    """Without the last windows of songs that have more than half of a target's windows."""
    kept = list(examples)
    for target in {e.target_name for e in examples}:
        while True:
            mine = [e for e in kept if e.target_name == target]
            song, count = Counter(e.song_id for e in mine).most_common(1)[0]
            if count == len(mine):
                raise StageLiteError(
                    f"all {len(mine)} windows with {target or 'the target'} are of one song, "
                    f"{song!r}; expected two at least: the floor gives each window the context of "
                    "another song; take more songs, another split or, if one stands out, a larger n"
                )
            if 2 * count <= len(mine):
                break
            last = [i for i, e in enumerate(kept) if (e.target_name, e.song_id) == (target, song)]
            del kept[last[-1]]
    return kept


def _lenders(examples: list[Example]) -> list[int]:
    """`examples.lenders` within each target."""
    found = [0] * len(examples)
    for target in {e.target_name for e in examples}:
        mine = [i for i, e in enumerate(examples) if e.target_name == target]
        for i, place in zip(mine, lenders([examples[i].song_id for i in mine]), strict=True):
            found[i] = mine[place]
    return found


def _reference(
    dataset: Sequence,
    order: Iterator[int],
    examples: list[Example],
    n: int,
    is_silent: Callable[[Example], bool],
) -> list[Example]:
    taken: dict[tuple[str, str], list[float]] = {}
    for e in examples:
        taken.setdefault((e.song_id, e.target_name), []).append(e.start_s)
    found: list[Example] = []
    for place in order if n else ():
        e = dataset[place]
        _check(e, place)
        near = taken.get((e.song_id, e.target_name), [])
        if all(abs(start_s - e.start_s) >= e.duration_s for start_s in near) and not is_silent(e):
            found.append(e)
        if len(found) == n:
            break
    return found


def _check(example: object, place: int) -> None:
    if not isinstance(example, Example):
        raise StageLiteError(
            f"item {place} of the data set is a {type(example).__name__}; expected a "
            "stage_lite.Example, as StemDataset and ShardDataset hold"
        )
    if example.target is None and example.target_codes is None:
        raise StageLiteError(
            f"window {place} ({name_of(example)}) has no target, neither audio nor codes; expected "
            "the real stem: without it there is no ceiling"
        )


def _check_alike(examples: list[Example]) -> None:
    for what, unit, values in (
        ("sample rates", "Hz", {e.sample_rate for e in examples if e.target is not None}),
        ("lengths", "s", {round(e.duration_s, 3) for e in examples}),
    ):
        if len(values) > 1:
            raise StageLiteError(
                f"the windows have different {what}: {sorted(values)} {unit}; expected one for "
                "all; take a data set of one kind"
            )
