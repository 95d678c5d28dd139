"""Shared test set-up: shapes are executed, one thread, tiny models built from nothing."""

from __future__ import annotations

import os
from pathlib import Path

# Two processes that fill numba's cache at the same time can leave a broken one, which then crashes
# every later process: librosa's compiled functions get a cache per test worker.
worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
numba_cache = Path(__file__).parents[1] / ".pytest_cache" / "numba" / worker
numba_cache.mkdir(parents=True, exist_ok=True)
os.environ["NUMBA_CACHE_DIR"] = str(numba_cache)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import atexit  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402

# Beats that tests track are kept for this run alone, away from the reader's own.
os.environ["STAGE_LITE_CACHE"] = tempfile.mkdtemp(prefix="stage-lite-tests-")
atexit.register(shutil.rmtree, os.environ["STAGE_LITE_CACHE"], ignore_errors=True)

import importlib.util  # noqa: E402
import sys  # noqa: E402

import jaxtyping  # noqa: E402

# `stage_widgets` is the folder widgets/: a checkout that is not installed finds it too.
if importlib.util.find_spec("stage_widgets") is None:
    folder = Path(__file__).parents[1] / "widgets"
    spec = importlib.util.spec_from_file_location(
        "stage_widgets", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["stage_widgets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["stage_widgets"])

# Every shape in a signature of stage_lite is checked when the function is called in a test.
jaxtyping.install_import_hook("stage_lite", "shapecheck.check")

import pytest  # noqa: E402
import torch  # noqa: E402
from browser import chromium, lab, lab_server, page  # noqa: E402, F401

torch.set_num_threads(1)


@pytest.fixture
def unchecked_types(monkeypatch):
    """As outside of tests: a wrong type reaches the library, whose own sentence is under test."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# Shapes of the tiny models: MusicGen's rates and delay, everything else as small as it goes.
TINY_WORDS = ("drums", "bass", "keys", "guitar", "rock", "bossa", "nova")
TINY_CARD = 16


def make_tiny_model(*, context_token=True, anchor_frames=None, trained_s=1.0, seed=0):
    """A StageModel of untrained weights: LM of 2 layers of 32, codec of 4 x 16 codes."""
    from stage_lite.codec import CodecConfig, build_codec
    from stage_lite.lm_config import LMConfig, build_lm
    from stage_lite.model import ModelConfig, StageModel

    codec_config = CodecConfig(
        n_filters_encoder=2, n_filters_decoder=2, dimension=8, card=TINY_CARD
    )
    lm_config = LMConfig(
        card=TINY_CARD,
        dim=32,
        num_layers=2,
        num_heads=2,
        vocabulary=TINY_WORDS,
        word_dim=8,
        context_token=context_token,
    )
    codec = build_codec(codec_config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in codec.quantizer.vq.layers:  # as if k-means had run
        embed = torch.randn(TINY_CARD, 8, generator=generator) * 0.1
        layer._codebook.embed.copy_(embed)
        layer._codebook.inited.fill_(1)
    lm = build_lm(lm_config, seed=seed)
    with (
        torch.no_grad()
    ):  # untrained logits are close to equal: sharpen them, so that choices differ
        for head in lm.linears:
            head.weight *= 20
    config = ModelConfig("tiny", lm_config, codec_config, anchor_frames, trained_s)
    return StageModel(lm, codec, config)


@pytest.fixture
def tiny_model():
    """With the context token; trained, so to say, on 1 s."""
    return make_tiny_model()


@pytest.fixture
def tiny_base():
    """Text only: no context token."""
    return make_tiny_model(context_token=False)
