"""Shared test set-up: shapes are executed, one thread, tiny models built from nothing."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

# Every shape in a signature of stage_lite is checked when the function is called in a test.
install_import_hook("stage_lite", "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
