"""Checks of notebook 08: a condition that gives nothing away, a leak, aligned positions.

The conditions of the reader get a stand-in for a song: the drums are bursts of noise with rests
between them, at a sample rate that is not the model's, and every window is somewhere in its middle.

Notebook: 08_own_conditioning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..condition_check import leak as leak_of
from ..song import Window
from .base import NotYet, accept, call, compare

RATE = 16000  # Hz, of the stand-in: not the model's 32,000
HUM_HZ, HUM_LEVEL = 220.0, 0.1
BURSTS = ((1.2, 0.3), (1.8, 0.03), (2.5, 0.3), (3.1, 0.03))  # (seconds, level) in the stand-in
BURST_S, EDGE_S = 0.3, 0.04
LEAK = 0.3  # of the target's waveform; noise reaches 0.05 by chance


def play_and_rest(function: Callable) -> None:
    """Exercise: a condition that says when to play, and not what.

    Args:
        function: (song, window) -> Float[1, L], or None where the target rests throughout.
    """
    song = _Take()
    window = Window(song, start_s=1.0, duration_s=2.6, target="drums", seed=3)
    drums = song.stem("drums", window.start_s, window.duration_s)
    wav = _wav_of(call(function, song, window), drums, song)
    heard = leak_of(wav, drums)
    if heard > LEAK:
        raise NotYet(
            f"that is a leak: {heard:.2f} of the drums' own waveform stands in the context. "
            "Training would go well, and nobody could give the model such a context afterwards; "
            "let the stem decide when the hum sounds, and nothing else"
        )
    playing, resting = _parts(window)
    if not bool(wav[0, playing].any()) and bool(wav[0, resting].any()):
        raise NotYet(
            "the hum sounds where the drums rest, and rests where they play: is the comparison "
            "turned round, or does the function read the song from its start instead of from "
            "window.start_s?"
        )
    over = float(wav[0, resting].abs().max())
    if over > 1e-3 and bool((wav[0].abs() > 1e-3).float().mean() > 0.97):
        raise NotYet(
            f"the hum never stops: it reaches {over:.2f} while the drums rest. A context that says "
            "the same all the time says nothing"
        )
    if over > 1e-3 or not bool(wav[0, playing].any()):
        raise NotYet(
            "the hum does not sound where the drums do. The window begins at window.start_s of the "
            f"song: read song.stem(window.target, window.start_s, window.duration_s); here it "
            f"reaches {over:.2f} in the rests"
        )
    _check_hum(wav, window)
    again = call(function, song, window)
    if not isinstance(again, Tensor) or not torch.equal(again, wav):
        raise NotYet(
            "the same window gave two different wavs; if you need random numbers, take them from "
            "window.rng()"
        )
    empty = Window(song, start_s=4.0, duration_s=0.61, target="drums", seed=3)  # no whole blocks
    rest = call(function, song, empty)
    if rest is not None:
        rest = _wav_of(rest, song.stem("drums", empty.start_s, empty.duration_s), song)
        if float(rest.abs().max()) > 1e-3:
            raise NotYet(
                "in a window in which the drums never play the hum sounds all the same; return "
                "None there, or silence"
            )
    bass = Window(song, start_s=1.0, duration_s=2.6, target="bass", seed=3)
    hum = call(function, song, bass)
    sounds = isinstance(hum, Tensor) and hum.shape == wav.shape and (hum[0].abs() > 1e-3)
    if sounds is False or float(sounds.float().mean()) < 0.97:
        raise NotYet(
            "with the target 'bass', which plays throughout, the hum does not: the stem to look at "
            "is window.target, not always the drums"
        )
    accept(function, "it says when to play, and gives nothing else away")


def leak(function: Callable) -> None:
    """Exercise: how much of the target stands in a context.

    Args:
        function: (context Float[1, L], target Float[1, L]) -> float in [0, 1].
    """
    generator = torch.Generator().manual_seed(5)
    target, other = torch.randn(2, 1, 4000, generator=generator) * 0.1
    late = torch.nn.functional.pad(target, (500, 0))[:, :4000]
    cases = (
        ("a copy", target.clone(), "A copy has 1: divide by both norms"),
        ("a copy at a tenth of its level", 0.1 * target,
         "A quiet copy is a copy: divide by the norm of the context, too"),
        ("a copy upside down", -target,
         "A wav times -1 sounds the same: take the absolute value before the largest"),
        ("a copy that is late", late,
         "A copy that comes later is one, too: look at every shift, not only at none"),
        ("a copy that is early", torch.nn.functional.pad(target, (0, 700))[:, 700:],
         "A copy that comes earlier is one, too: look at shifts to either side"),
        ("a copy below as much noise", target + other, "A part of it counts in part"),
        ("other noise", other, "What has nothing to do with the target is near 0"),
    )  # fmt: skip
    for what, context, hint in cases:
        got = _number(call(function, context, target), what)
        right = leak_of(context, target)
        if not abs(got - right) < 0.01:
            raise NotYet(f"{what}: got {got:.3f}, expected {right:.3f}. {hint}")
    silent = torch.zeros(1, 4000)
    for what, pair in (("silence", (silent, target)), ("a silent target", (target, silent))):
        got = _number(call(function, *pair), what)
        if not abs(got) < 1e-6:
            raise NotYet(
                f"{what}: got {got}, expected 0. Nothing stands in there, and 0 / 0 is no number: "
                "ask first whether both have any sound"
            )
    accept(function, "it finds copies, late, quiet and upside down")


def step_positions(function: Callable) -> None:
    """Exercise: the numbers of steps, counted on or aligned.

    Args:
        function: (n_context, n_target, n_q, aligned) -> Int[S], S = n_context + 1 + n_target + n_q.
    """
    for n_context, n_target, n_q in ((4, 3, 2), (3, 6, 4), (1, 1, 1)):
        steps = torch.arange(n_context + 1 + n_target + n_q)
        for aligned in (False, True):
            right = _positions(n_context, n_target, n_q, aligned)
            mistakes = {
                "Aligned or not, your numbers are the same": _positions(
                    n_context, n_target, n_q, not aligned
                ),
                "Your target is one number late: the token takes 0, so that frame 0 of the target "
                "has 1, as frame 0 of the context has": torch.where(
                    steps > n_context, steps - n_context, steps
                ),
                "Your target is one number early: the token is counted into the context, so "
                "frame 0 of the target has 0, and frame 0 of the context 1": torch.where(
                    steps > n_context + 1, steps - n_context - 2, steps
                ),
                "Counting goes round: the target may be longer than the context, and its numbers "
                "must go on then": steps % (n_context + 1),
            }
            got = call(function, n_context, n_target, n_q, aligned)
            what = f"the positions ({n_context} + 1 + {n_target} frames, aligned={aligned})"
            compare(got, right, what, "[S]", mistakes)
    accept(function, "both ways of counting are the library's")


# --- helpers -----------------------------------------------------------------------------------


class _Take:
    """Stands in for a Song of 5 s: drums in bursts of noise, a bass that plays throughout."""

    id, sample_rate, duration_s, stem_names = "stand-in", RATE, 5.0, ["drums", "bass"]
    rate, semitones = 1.0, 0
    beats, downbeats, chords = (0.5, 1.0, 1.5, 2.0), (0.5,), [(0.0, "Am7")]

    def __init__(self) -> None:
        noise = torch.randn(
            2, round(self.duration_s * RATE), generator=torch.Generator().manual_seed(4)
        ).clamp(-3, 3)
        levels = torch.zeros(noise.shape[1])
        for start_s, level in BURSTS:
            levels[round(start_s * RATE) : round((start_s + BURST_S) * RATE)] = level
        self._wavs = {"drums": (noise[0] * levels)[None], "bass": 0.1 * noise[1:]}

    def stem(
        self, name: str, start_s: float = 0.0, duration_s: float | None = None
    ) -> Float[Tensor, "1 L"]:
        """As Song.stem."""
        first = round(start_s * RATE)
        length = round(self.duration_s * RATE) - first
        length = length if duration_s is None else round(duration_s * RATE)
        part = self._wavs[name][:, first : first + length].clone()
        return torch.nn.functional.pad(part, (0, length - part.shape[1]))

    def mix(self, names=None, start_s=0.0, duration_s=None) -> Float[Tensor, "1 L"]:
        """As Song.mix."""
        return sum(self.stem(name, start_s, duration_s) for name in names or self.stem_names)


def _wav_of(wav: Any, drums: Tensor, song: _Take) -> Tensor:
    """The reader's wav, if it is a mono wav of the window."""
    if wav is None:
        raise NotYet(
            "got None for a window in which the drums play; None is for windows in which there is "
            "nothing to say. Does the function end with `return ...`?"
        )
    if not isinstance(wav, Tensor):
        raise NotYet(f"got a {type(wav).__name__}; expected a tensor [1, L]")
    if wav.dim() != 2 or wav.shape[0] != 1:
        raise NotYet(f"got the shape {list(wav.shape)}; expected [1, L]: one channel")
    if wav.shape[1] != drums.shape[1]:
        raise NotYet(
            f"got {wav.shape[1]} samples for a window of {drums.shape[1] / RATE:g} s at "
            f"{song.sample_rate} Hz; expected {drums.shape[1]}: songs have a rate of their own, "
            "song.sample_rate, and a context sounds exactly as long as its window"
        )
    if not wav.is_floating_point() or not bool(torch.isfinite(wav).all()):
        raise NotYet(f"got {wav.dtype} with values that are no numbers; expected floats in [-1, 1]")
    if float(wav.abs().max()) > 1:
        raise NotYet(f"it reaches {float(wav.abs().max()):.2f}; a wav stays in [-1, 1]")
    return wav


def _parts(window: Window) -> tuple[Tensor, Tensor]:
    """Bool[L] each: well inside of a burst, and well outside of all."""
    time = torch.arange(round(window.duration_s * RATE)) / RATE + window.start_s
    playing = torch.zeros_like(time, dtype=torch.bool)
    resting = torch.ones_like(playing)
    for start_s, _ in BURSTS:
        playing |= (time > start_s + EDGE_S) & (time < start_s + BURST_S - EDGE_S)
        resting &= (time < start_s - EDGE_S) | (time > start_s + BURST_S + EDGE_S)
    return playing, resting


def _check_hum(wav: Tensor, window: Window) -> None:
    """In each burst: there, unbroken, at one level and pitch."""
    levels = []
    for start_s, _ in BURSTS:
        at = start_s - window.start_s
        part = wav[0, round((at + EDGE_S) * RATE) : round((at + BURST_S - EDGE_S) * RATE)]
        levels.append(float(part.square().mean().sqrt()))
        if levels[-1] < 1e-4:
            raise NotYet(
                f"the burst at {at:.1f} s of the window has no hum: a quiet stroke (-30 dBFS) is "
                "one, too; only below 0.01 (-40 dBFS) the stem rests"
            )
        if float((part.abs() < 1e-7).float().mean()) > 0.02:
            raise NotYet(
                "the hum is in pieces within a burst: a wave passes zero hundreds of times a "
                "second. Ask for the level of a block of 20 ms, not for single samples"
            )
    if max(levels) > 1.2 * min(levels):
        raise NotYet(
            f"the hum is {max(levels) / min(levels):.1f} times louder in some bursts than in "
            "others; expected the same level wherever the drums play (how loud they are is the "
            "third idea of the notebook, not this one)"
        )
    expected = HUM_LEVEL / 2**0.5
    if not 0.9 * expected < levels[0] < 1.1 * expected:
        raise NotYet(
            f"the hum has a level of {levels[0]:.3f} (RMS); expected {expected:.3f}, a sine with "
            f"the peak {HUM_LEVEL}"
        )
    at = round((BURSTS[0][0] - window.start_s + EDGE_S) * RATE)
    part = wav[0, at : at + RATE // 5]
    found = float(torch.fft.rfft(part * torch.hann_window(len(part))).abs().argmax() * 5)
    if abs(found - HUM_HZ) > 10:
        raise NotYet(
            f"the hum is at about {found:.0f} Hz; expected {HUM_HZ:.0f} Hz: sin(2 pi f t), t in "
            "seconds of this song's sample rate"
        )


def _positions(n_context: int, n_target: int, n_q: int, aligned: bool) -> Tensor:
    """The library's own."""
    from ..prefix import ALIGNED, build_prefix

    codes = torch.zeros(1, n_q, max(n_context, n_target), dtype=torch.long)
    built = build_prefix(
        codes[..., :n_context],
        codes[..., :n_target],
        special_token_id=1,
        context_token_id=2,
        anchor_frames=ALIGNED if aligned else None,
    )
    return built.positions[0]


def _number(got: Any, what: str) -> float:
    if isinstance(got, bool) or not isinstance(got, int | float | Tensor) or (
        isinstance(got, Tensor) and (got.numel() != 1 or got.is_complex())
    ):  # fmt: skip
        raise NotYet(
            f"{what}: got a {type(got).__name__}; expected one number in [0, 1]. "
            "Does the function end with `return ...`?"
        )
    return float(got)
