"""Measures of accompaniment, one file per family: `stage_lite.metrics.beats.beat_f1(...)`.

Files are imported when they are first used, as everywhere in the package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__all__ = [
    "agreement",
    "beat_this_tracker",
    "beats",
    "bootstrap",
    "coherence",
    "continuity",
    "contrastive",
    "drift",
    "embeddings",
    "frechet",
    "loop",
    "precision",
    "report",
    "report_clips",
    "start",
    "tempo",
    "text",
    "trackers",
]

if TYPE_CHECKING:  # for editors; never executed
    from . import (
        agreement,
        beat_this_tracker,
        beats,
        bootstrap,
        coherence,
        continuity,
        contrastive,
        drift,
        embeddings,
        frechet,
        loop,
        precision,
        report,
        report_clips,
        start,
        tempo,
        text,
        trackers,
    )


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(
            f"module 'stage_lite.metrics' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
