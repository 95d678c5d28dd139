"""The same windows of token shards with every condition's context, so that conditions compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import StageLiteError
from ..examples import Example
from ..shards import SHORT_NAMES, SILENCE_DB, ShardDataset
from .windows import FEWEST_BEATS


def same_windows(
    tokens: Path | Sequence[Path],
    target: str,
    conditions: Sequence[str],
    n: int,
    *,
    window_s: float = 8.0,
    seed: int = 0,
    split: str = "test",
    fewest_beats: int = FEWEST_BEATS,
) -> dict[str, list[Example]]:
    """The same n windows for every condition, so that conditions compare.

    Args:
        tokens: folder of shards, or several.
        target: stem that is heard in at least half of each window.
        conditions: "click", "mix" or any stream; each must be there and heard in each window.
        n: how many; a window depends on (seed, number) alone.
        window_s, seed, split: of `ShardDataset`.
        fewest_beats: in a window.

    Raises:
        StageLiteError: the split holds too few such windows.
    """
    conditions = [SHORT_NAMES.get(c, c) for c in conditions]
    # A click is always there, a mix is not: windows are drawn by what is rarer.
    drawn_by = next((c for c in conditions if c != "click"), conditions[0])
    data = ShardDataset(
        tokens, target, window_s=window_s, conditions=drawn_by, seed=seed, split=split,
        n=50 * n, verify=False,
    )  # fmt: skip
    streams = {song_id: s for shard in data.shards for song_id, s in _streams(shard).items()}
    windows: dict[str, list[Example]] = {c: [] for c in conditions}
    for example in data:
        if len(example.beat_times) < fewest_beats:
            continue
        start_frame = round(example.start_s * data.frame_rate)
        found = {drawn_by: example}
        for name in set(conditions) - {drawn_by}:
            stream = next((s for s in (f"{name}:{target}", name)
                           if s in streams[example.song_id]), None)  # fmt: skip
            if stream and _heard(streams[example.song_id][stream], example.start_s, window_s):
                found[name] = data.window(example.song_id, start_frame, target, stream, name)
        if len(found) == len(conditions):
            for name, one in found.items():
                windows[name].append(one)
        if len(windows[drawn_by]) == n:
            return windows
    raise StageLiteError(
        f"found {len(windows[drawn_by])} windows of split {split!r} with {target} and all of "
        f"{conditions}; expected {n}; take fewer, or more songs"
    )


def other_songs(examples: Sequence[Example], count: int = 20, seed: int = 0) -> list[list[int]]:
    """For each example the numbers of at most `count` examples of other songs, drawn evenly."""
    rng = np.random.default_rng(seed)
    chosen = []
    for one in examples:
        others = [i for i, e in enumerate(examples) if e.song_id != one.song_id]
        chosen.append([int(i) for i in rng.permutation(others)[:count]])
    return chosen


def _streams(shard) -> dict[str, dict]:
    return {song_id: song["streams"] for song_id, song in shard.songs.items()}


def _heard(stream: dict, start_s: float, window_s: float) -> bool:
    levels = stream.get("rms_db")
    if levels is None:
        return True
    inside = levels[int(start_s) : int(start_s + window_s)]
    return sum(level > SILENCE_DB for level in inside) >= window_s / 2
