"""Checks of notebook 00: a song from a click.

The reader's function gets a stand-in for the model whose every call is recorded, so the check takes
milliseconds and looks at what the function does, not at how it is written.

Notebook: 00_quickstart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .base import NotYet, accept, call


def build_song(function: Callable) -> None:
    """Exercise of 00_quickstart: stem after stem, each hearing all before it.

    Args:
        function: (model, click Float[1, L], descriptions, seed) -> list of Float[1, L].
    """
    descriptions = ["drums, rock", "bass, rock", "keys, rock"]
    band = _Band(["click", *descriptions])
    click = band.sound("click")
    stems = call(function, band, click, descriptions, 7)
    asked = list(band.asked)
    if len(asked) != len(descriptions):
        raise NotYet(
            f"model.generate was called {len(asked)} times for {len(descriptions)} descriptions; "
            "expected one call for each"
        )
    told = [request.description for request in asked]
    if told != descriptions:
        raise NotYet(
            f"the model was told {told}; expected {descriptions}, one description a call, in order"
        )
    for i, request in enumerate(asked):
        _check_context(band, request, i, descriptions)
    _check_stems(band, stems, descriptions)
    seeds = [request.seed for request in asked]
    if None in seeds:
        raise NotYet(
            f"the seeds of the calls were {seeds}; without a seed every run makes other music: "
            "pass seed=seed on to model.generate"
        )
    accept(function, "each stem hears what it should")


# --- helpers -----------------------------------------------------------------------------------


class _Band:
    """Stands in for a StageModel: each stem sounds in a place of its own, calls are recorded."""

    sample_rate, frame_rate = 32000, 50.0
    n_samples, level = 800, 0.1  # of each sound

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.asked: list[SimpleNamespace] = []

    def sound(self, name: str) -> Float[Tensor, "1 L"]:
        """Silence but for this sound's own place."""
        wav = torch.zeros(1, self.n_samples * len(self.names))
        start = self.n_samples * self.names.index(name)
        wav[:, start : start + self.n_samples] = self.level
        return wav

    def heard(self, wav: Tensor) -> dict[str, float]:
        """Which sounds are in a wav, and how loud, 1 being as they were made."""
        places = wav.reshape(-1)[: self.n_samples * len(self.names)].split(self.n_samples)
        levels = [float(place.mean()) / self.level for place in places]
        return {n: v for n, v in zip(self.names, levels, strict=False) if abs(v) > 0.01}

    def generate(
        self, context=None, context_sample_rate=None, description=None, duration_s=None, *,
        seed=None, **others,
    ) -> SimpleNamespace:  # fmt: skip
        """As StageModel.generate, for one row."""
        context = None if context is None else torch.as_tensor(context).clone()
        self.asked.append(SimpleNamespace(
            context=context, context_sample_rate=context_sample_rate, description=description,
            seed=seed, **others,
        ))  # fmt: skip
        known = description in self.names
        wav = self.sound(description) if known else torch.zeros(1, self.n_samples)
        return SimpleNamespace(wav=wav[None], sample_rate=self.sample_rate)


def _check_context(band: _Band, request: SimpleNamespace, i: int, names: list[str]) -> None:
    who = f"call {i + 1} ({names[i]!r})"
    expected = ["click"] if i == 0 else names[:i]
    if request.context is None:
        raise NotYet(
            f"{who} had no context: it cannot play along with anything. Expected context = "
            f"{'the click' if i == 0 else 'the sum of the stems so far'}"
        )
    if request.context_sample_rate != band.sample_rate:
        raise NotYet(
            f"{who} had context_sample_rate = {request.context_sample_rate!r}; samples mean "
            "nothing without their rate: expected model.sample_rate, that of click and stems"
        )
    heard = band.heard(request.context)
    if set(heard) != set(expected):
        raise NotYet(f"{who} heard {_names(heard)}; expected {_names(expected)}. "
                     + _why(set(heard), set(expected), i))  # fmt: skip
    quiet = {name: level for name, level in heard.items() if abs(level - 1) > 0.02}
    if quiet:
        name, level = next(iter(quiet.items()))
        raise NotYet(
            f"{who} heard {name!r} at {level:.2f} of its level; expected the plain sum, as in "
            "training: add the stems, do not average them"
        )


def _why(heard: set[str], expected: set[str], i: int) -> str:
    if "click" in heard and heard - {"click"}:
        return (
            "Take the click away once there are stems: in training a context was a click or a mix, "
            "never both"
        )
    if "click" in heard:
        return "The click is for the first stem only; later ones play along with the stems so far"
    if heard < expected and i > 1:
        return "All stems so far belong into the sum, not only the last one"
    return "The context of a stem is what was made before it"


def _check_stems(band: _Band, stems: Any, names: list[str]) -> None:
    if not isinstance(stems, list | tuple):
        raise NotYet(
            f"the function returned {type(stems).__name__}; expected the list of stems. "
            "Does it end with `return stems`?"
        )
    if len(stems) != len(names):
        raise NotYet(f"the function returned {len(stems)} stems; expected {len(names)}")
    for name, stem in zip(names, stems, strict=True):
        if not isinstance(stem, Tensor):
            raise NotYet(
                f"the stem {name!r} is a {type(stem).__name__}; expected its audio: "
                "model.generate(...).wav[0]"
            )
        if stem.dim() != 2 or stem.shape[0] != 1:
            raise NotYet(
                f"the stem {name!r} has shape {tuple(stem.shape)}; expected [1, L]: `.wav` is a "
                "batch [B, C, L], `.wav[0]` its first row"
            )
        if set(band.heard(stem)) != {name}:
            raise NotYet(
                f"where {name!r} should be, the function returned the sound of "
                f"{_names(band.heard(stem))}; expected each generated stem alone, in order"
            )


def _names(names: Any) -> str:
    return " + ".join(repr(name) for name in names) or "silence"
