"""What bf16 and int8 cost in quality: loss of real stems, and beat F1 of drums made to a click.

    python -m benchmarks precision              24 windows of 8 s of the test split
    python -m benchmarks precision --n 48 --keep folder

Drums of the shipped test songs, each with its click as the context. What is measured, and how:
`stage_lite/metrics/precision.py`. Each window's numbers are kept in a folder, so a run that was
stopped, or one with more windows, goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import stage_lite as sl
from stage_lite.metrics.precision import compare_weights
from stage_lite.result_store import ResultStore

N = 24  # windows
TOKENS = Path(__file__).parents[1] / "data_samples" / "tokens"
KEEP = Path(tempfile.gettempdir()) / "stage_lite_precision"


def windows(n: int = N, window_s: float = 8.0, folder: Path = TOKENS, seed: int = 0) -> list:
    """Drums of songs that no shipped model was trained on."""
    data = sl.ShardDataset(
        folder, "drums", window_s=window_s, conditions=["click"], split="test", seed=seed, n=n
    )
    return list(data)


def measure(model, n: int = N, keep: str | Path | None = KEEP):
    """The pandas table of `compare_weights` over n windows."""
    examples = windows(n, model.config.trained_s)
    return compare_weights(model, examples, store=ResultStore(keep))
