"""What can stand in a prefix: a condition is a function (song, window) -> wav.

    import stage_lite as sl

    @sl.condition("bass-only")
    def bass_only(song, window):
        return song.stem("bass", window.start_s, window.duration_s)

    StemDataset(folder, conditions=["bass-only"])

That is all: data sets, training, evaluation and token shards know it by its name. A function that
finds nothing to say in a window returns None, and another window is drawn. Randomness comes from
`window.rng()`, so that the same window always gives the same wav.

Notebook: 08_own_conditioning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from .audio import level_db, mix
from .errors import StageLiteError
from .metronome import click_track

if TYPE_CHECKING:
    from .song import Song, Window

ALIASES = {"mix": "mixture", "click": "metronome"}  # short names, as in token shards
NOT_MIXED = frozenset({"vocals"})  # STAGE plays along with instruments
SILENCE_DB = -50.0  # dBFS over a window; quieter stems are left out of a mixture

ConditionFunction = Callable[["Song", "Window"], "Tensor | None"]


@dataclass(frozen=True)
class Condition:
    """A registered condition; call it as `condition(song, window)`."""

    name: str
    function: ConditionFunction
    needs_target: bool  # False: the same wav whatever the target is
    description: str

    def __call__(self, song: Song, window: Window) -> Float[Tensor, "1 L"] | None:
        """The wav that stands in the prefix, or None.

        Raises:
            StageLiteError: the function returned something that is no mono wav.
        """
        wav = self.function(song, window)
        if wav is not None and not (
            isinstance(wav, Tensor) and wav.dim() == 2 and wav.shape[0] == 1
        ):
            got = f"shape {tuple(wav.shape)}" if hasattr(wav, "shape") else type(wav).__name__
            raise StageLiteError(
                f"condition {self.name!r} returned {got}; expected a tensor [1, L] at "
                f"{song.sample_rate} Hz, or None for a window without anything to hear"
            )
        return wav


_CONDITIONS: dict[str, Condition] = {}


def condition(
    name: str, *, needs_target: bool = True
) -> Callable[[ConditionFunction], ConditionFunction]:
    """Register a function (song, window) -> Float[1, L] under a name; use it as a decorator.

    Args:
        name: what data sets call it. Registering a name again replaces it, so that a notebook cell
            can be run twice; the conditions of this file cannot be replaced.
        needs_target: False if the wav does not depend on `window.target`; token shards then hold
            one stream for all targets.
    """
    if not isinstance(name, str) or not name or set(name) & set(":#/ "):
        raise StageLiteError(
            f"condition name {name!r}; expected a non-empty word without ':', '#', '/' and spaces"
        )
    taken = ALIASES.get(name) or (
        name if name in _CONDITIONS and _CONDITIONS[name].function.__module__ == __name__ else None
    )
    if taken or name == "none":
        raise StageLiteError(f"condition {name!r} is built in; expected a name of your own")

    def register(function: ConditionFunction) -> ConditionFunction:
        if not callable(function):
            raise StageLiteError(
                f"condition {name!r} decorates a {type(function).__name__}; expected a function "
                "(song, window) -> wav"
            )
        first_line = (function.__doc__ or "").strip().partition("\n")[0]
        _CONDITIONS[name] = Condition(name, function, needs_target, first_line)
        return function

    return register


def get_condition(name: str) -> Condition:
    """The condition of a name; "mix" and "click" are short for "mixture" and "metronome"."""
    known = _CONDITIONS.get(ALIASES.get(name, name))
    if known is None:
        raise StageLiteError(
            f"unknown condition {name!r}; expected one of {list_conditions()}, or a function of "
            f"your own under @stage_lite.condition({name!r})"
        )
    return known


def list_conditions() -> list[str]:
    """Names of all registered conditions, sorted."""
    return sorted(_CONDITIONS)


@condition("mixture")
def mixture(song: Song, window: Window) -> Float[Tensor, "1 L"] | None:
    """The sum of a random non-empty subset of the other stems that are heard; no vocals."""
    others = _others(song, window)
    if not others:
        return None
    chosen = int(window.rng().integers(1, 2 ** len(others)))  # one bit per stem
    return mix([wav for bit, wav in enumerate(others) if chosen >> bit & 1])


@condition("backing")
def backing(song: Song, window: Window) -> Float[Tensor, "1 L"] | None:
    """The sum of all other stems that are heard, the whole song without the target; no vocals."""
    others = _others(song, window)
    return mix(others) if others else None


@condition("metronome", needs_target=False)
def metronome(song: Song, window: Window) -> Float[Tensor, "1 L"] | None:
    """A click on every beat, a louder one on downbeats."""
    beats, downbeats = window.beat_times, window.downbeat_times
    if len(beats) == 0:
        return None
    return click_track(beats, downbeats, duration_s=window.duration_s, sample_rate=song.sample_rate)


@condition("self")
def self_(song: Song, window: Window) -> Float[Tensor, "1 L"]:
    """The target itself: copying it teaches a model where to look."""
    return song.stem(window.target, window.start_s, window.duration_s)


def _others(song: Song, window: Window) -> list[Float[Tensor, "1 L"]]:
    """The stems that a target may be mixed with: heard in the window, not sung, not the target."""
    names = [n for n in song.stem_names if n != window.target and n not in NOT_MIXED]
    wavs = [song.stem(name, window.start_s, window.duration_s) for name in names]
    return [wav for wav in wavs if level_db(wav) > SILENCE_DB]
