"""Stage Lite: a small MusicGen that plays along.

    import stage_lite as sl
    model = sl.load("nano")
    out = model.generate(context=wav, context_sample_rate=sr, description="drums, bossa nova")

Names are imported when they are first used (PEP 562), so `import stage_lite` loads neither torch
nor audiocraft. The table below is the whole public surface.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> the file that holds it
_HOME = {
    "StageLiteError": "errors",
    "StageModel": "model",
    "Generation": "generation",
    "ModelConfig": "model",
    "load": "model",
    "load_audio": "audio",
    "save_audio": "audio",
    "delay": "delay",
    "undelay": "delay",
    "extend_embedding": "prefix",
    "build_prefix": "prefix",
    "prefix_loss": "prefix",
    "Prefix": "prefix",
    "forward": "lm",
    "build_lm": "lm_config",
    "LMConfig": "lm_config",
    "build_codec": "codec",
    "CodecConfig": "codec",
    "generate_codes": "generate",
    "stream_codes": "generate",
    "click_track": "metronome",
    "beat_grid": "metronome",
    "condition": "conditions",
    "get_condition": "conditions",
    "list_conditions": "conditions",
    "StemDataset": "stems",
    "Song": "song",
    "Window": "song",
    "Example": "examples",
    "ShardDataset": "shards",
    "attention": "attention",
    "scan": "scan",
    "finetune": "training",
    "tokenize_songs": "tokenization",
    "evaluate": "metrics.report",
}

# files that are used by their own name: sl.metrics.beats.beat_f1(...)
_ROOMS = ("interop", "metrics", "plots")

__all__ = ["__version__", *sorted(_HOME), *_ROOMS]

if TYPE_CHECKING:  # for editors; never executed
    from .attention import attention
    from .audio import load_audio, save_audio
    from .codec import CodecConfig, build_codec
    from .conditions import condition, get_condition, list_conditions
    from .delay import delay, undelay
    from .errors import StageLiteError
    from .examples import Example
    from .generate import generate_codes, stream_codes
    from .generation import Generation
    from .lm import forward
    from .lm_config import LMConfig, build_lm
    from .metrics.report import evaluate
    from .metronome import beat_grid, click_track
    from .model import ModelConfig, StageModel, load
    from .prefix import Prefix, build_prefix, extend_embedding, prefix_loss
    from .scan import scan
    from .shards import ShardDataset
    from .song import Song, Window
    from .stems import StemDataset
    from .tokenization import tokenize_songs
    from .training import finetune


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(
            f"module 'stage_lite' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}"
        )
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `stage_lite.delay` the function.

    After importing the file delay.py, Python stores the file's module under the same name in the
    package; the function that gave the file its name is what stays visible here.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
