"""How long `sl.evaluate` listens, once the music is generated: asked are 3 minutes for 256 windows.

    python -m benchmarks metrics                    256 windows of 8 s: drums to a mix, test split
    python -m benchmarks metrics --n 64

The music is generated first and kept, so a run that was stopped goes on; then every metric is
computed from nothing, the way a first `evaluate` does it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import stage_lite as sl
from benchmarks.precision import TOKENS
from benchmarks.side_by_side import Row

N = 256
FOLDERS = [TOKENS, TOKENS.with_name("tokens_test")]
KEEP = Path(tempfile.gettempdir()) / "stage_lite_metrics"


def measure(
    model: sl.StageModel,
    n: int = N,
    keep: Path = KEEP,
    window_s: float = 8.0,
    folders: Sequence[Path] = FOLDERS,
) -> Row:
    """Seconds of all metrics of a report over n windows, where three minutes are asked for 256."""
    windows = sl.ShardDataset(
        folders, "drums", window_s=window_s, conditions=["mix"], split="test", n=3 * n
    )  # more than n: silent ones are passed over, and as many more are the reference
    kept = {"n": n, "seed": 0, "batch_size": 16}
    # What a function of one's own finds is not kept: so only the music is.
    sl.evaluate(model, windows, metrics=["kad_biased"], embedding=_cheap, cache_dir=keep, **kept)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        shutil.copytree(keep, cache)
        start = time.perf_counter()
        table = sl.evaluate(model, windows, cache_dir=cache, **kept)
        taken = time.perf_counter() - start
    missing = "".join(f", without {name}" for name in table.attrs["missing"])
    what = f"all metrics, {n} windows of {window_s:g} s{missing}"
    return Row(what, taken, "s", bar=f"at most {180 * n / N:.3g} s")


def _cheap(wavs: list[torch.Tensor], sample_rate: int) -> torch.Tensor:
    return torch.tensor([[float(wav.mean()), float(wav.std())] for wav in wavs])
