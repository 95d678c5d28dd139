"""Widgets that let you hear, see and touch the model, in JupyterLab, Notebook 7, VS Code and Colab.

    from stage_widgets import StemMixer, MetronomePad
    StemMixer({"drums": drums, "bass": bass}, sample_rate=32000, beats=beats, downbeats=downbeats)

Names are imported when they are first used, so that one widget does not cost all the others.
How a widget is made: README.md in this folder.
"""

from __future__ import annotations

import importlib

# public name -> the file that holds it
_HOME = {
    "Accompanist": "accompanist",
    "AttentionViewer": "attention",
    "ListeningTest": "listening",
    "MetronomePad": "metronome",
    "StageWidget": "base",
    "StemMixer": "mixer",
    "TokenGrid": "tokens",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(
            f"module 'stage_widgets' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}"
        )
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
