"""Is a function a condition? What teaches a model nothing, or lets it cheat, is found first.

    check_condition("my-idea", open_samples(), "drums")

A condition says something about the target that its user can say too: a tempo, a rhythm, how loud.
One that holds the target's own sound is a leak: training goes well, and there is nothing to give
the model afterwards.

Notebook: 08_own_conditioning.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .audio import level_db
from .conditions import SILENCE_DB, get_condition
from .errors import StageLiteError
from .song import Song, Window
from .stems import StemDataset

MOST = 0.3  # of the target in a context, see `leak`, in half of the windows


@dataclass(frozen=True)
class ConditionReport:
    """What was heard of a condition in some windows."""

    name: str
    windows: int
    spoke: int  # windows in which it was heard
    level_db: float  # its mean level there, dBFS
    leak: float  # how much of the target is in it, see `leak`; the median over windows

    def __str__(self) -> str:
        return (
            f"{self.name!r} is a condition: heard in {self.spoke} of {self.windows} windows, "
            f"{self.level_db:.0f} dBFS, {self.leak:.2f} of the target in it"
        )


def leak(context: Float[Tensor, "1 Lc"], target: Float[Tensor, "1 L"]) -> float:
    """How much of the target's waveform stands in the context, however late and however loud.

    The largest absolute cross-correlation over all shifts, divided by both norms: 1 is a copy, 0.7
    a copy among other things as loud as it, and near 0 has nothing of its waveform. Two held notes
    of one pitch may reach 0.3 by chance. What was filtered, stretched or transposed is not found.

    Returns:
        In [0, 1]; 0 if one of them is silent.
    """
    size = float(context.norm() * target.norm())
    if size == 0:
        return 0.0
    n = context.shape[-1] + target.shape[-1]  # zeros behind both: no shift wraps round
    alike = torch.fft.rfft(context[0], n) * torch.fft.rfft(target[0], n).conj()
    return min(1.0, float(torch.fft.irfft(alike, n).abs().max()) / size)


def check_condition(
    name: str,
    songs: Sequence[Song],
    target: str = "drums",
    *,
    window_s: float = 4.0,
    n: int = 8,
    seed: int = 0,
) -> ConditionReport:
    """Ask a condition for some windows, and look at what it says.

    Args:
        name: a registered condition.
        songs: at least one with the target; windows are drawn as for training.
        target: the stem that is to be played.
        window_s: length of the windows.
        n: windows.
        seed: of their choice.

    Raises:
        StageLiteError: it raised, or what it gave is no mono wav, has not the window's length, is
            not finite or beyond [-1, 1], differs between two calls, is silence everywhere, is the
            same everywhere, or holds the target. The message names song and second.
    """
    condition = get_condition(name)
    data = StemDataset(
        songs, target, window_s=window_s, conditions=["none"], seed=seed, n=n,
        sample_rate=songs[0].sample_rate,
    )  # fmt: skip
    heard: list[Tensor] = []
    leaks: list[float] = []
    for example in data:
        song = next(s for s in songs if s.id == example.song_id)
        window = Window(song, example.start_s, window_s, target, seed)
        where = f"of song {song.id!r} at {example.start_s:.2f} s"
        try:
            wav, again = condition(song, window), condition(song, window)
        except StageLiteError:
            raise
        except Exception as error:
            raise StageLiteError(
                f"condition {name!r} raised {type(error).__name__} in the window {where}: {error}; "
                "expected a wav, or None where there is nothing to say"
            ) from error
        if wav is None:
            continue
        _check_wav(name, wav, round(window_s * song.sample_rate), song.sample_rate, where)
        if again is None or again.shape != wav.shape or not torch.equal(wav, again):
            raise StageLiteError(
                f"condition {name!r} gave two different wavs for the window {where}; expected the "
                "same; draw random numbers from window.rng()"
            )
        if level_db(wav) > SILENCE_DB:
            heard.append(wav)
        leaks.append(leak(wav, example.target))
    if not heard:
        raise StageLiteError(
            f"condition {name!r} was silent in all {len(data)} windows (below {SILENCE_DB:g} dBFS "
            "or None); expected something to hear; is it made from a label that these songs lack?"
        )
    if len(heard) > 1 and all(torch.equal(heard[0], wav) for wav in heard[1:]):
        raise StageLiteError(
            f"condition {name!r} gave the same wav for {len(heard)} different windows; expected "
            "one that depends on the window; a context that never changes can teach nothing"
        )
    found = statistics.median(leaks)
    if found > MOST:
        raise StageLiteError(
            f"condition {name!r} holds the target: {found:.2f} of it stands in the context (the "
            f"median over {len(leaks)} windows; 1 is a copy, {MOST} too much for chance); "
            "expected what a user could say about the target, not its sound"
        )
    level = sum(map(level_db, heard)) / len(heard)
    return ConditionReport(condition.name, len(data), len(heard), level, found)


def _check_wav(name: str, wav: Tensor, length: int, sample_rate: int, where: str) -> None:
    if wav.shape[1] != length:
        raise StageLiteError(
            f"condition {name!r} gave {wav.shape[1]} samples for the window {where}; expected "
            f"{length}, window.duration_s * song.sample_rate at {sample_rate} Hz"
        )
    if not wav.is_floating_point() or not bool(torch.isfinite(wav).all()):
        raise StageLiteError(
            f"condition {name!r} gave {wav.dtype} with values that are no finite numbers for the "
            f"window {where}; expected floats in [-1, 1]"
        )
    if float(wav.abs().max()) > 1 + 1e-6:
        raise StageLiteError(
            f"condition {name!r} reaches {float(wav.abs().max()):.2f} in the window {where}; "
            "expected floats in [-1, 1]; stage_lite.audio.limit turns a wav down"
        )
