"""Checks of notebook 01: bits, residual quantisation, the delay pattern.

Notebook: 01_tokenization.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import NotYet, accept, call, compare


def kbit_per_s(function: Callable) -> None:
    """Exercise: the bit rate of a codec.

    Args:
        function: (sample_rate Hz, hop_length samples, n_q, card) -> kbit per second.
    """
    for rate, hop, n_q, card in (
        (32000, 640, 4, 512),
        (24000, 320, 8, 1024),
        (48000, 960, 2, 2048),
    ):
        got = _number(call(function, rate, hop, n_q, card), "the bit rate")
        frames, bits = rate / hop, math.log2(card)
        right = frames * n_q * bits / 1000
        mistakes = {
            1000 * right: "That is in bits a second; 1 kbit is 1000 bits",
            rate * n_q * bits / 1000: "That counts a code for every sample. The codec writes one "
            "frame per hop: frames a second = sample_rate / hop_length",
            frames * bits / 1000: "That is one codebook. Each frame holds n_q codes",
            frames * n_q * math.log(card) / 1000: "That is in nats: a bit is a choice between two, "
            "so take math.log2",
            frames * n_q * card / 1000: "To name one of `card` entries takes log2(card) bits, not "
            "`card` bits",
        }
        for wrong, sentence in mistakes.items():
            if math.isclose(got, wrong) and not math.isclose(wrong, right):
                raise NotYet(sentence)
        if not math.isclose(got, right):
            raise NotYet(
                f"{rate} Hz, hop {hop}, {n_q} codebooks of {card}: got {got:g} kbit/s, expected "
                f"{right:g}: frames a second x codes a frame x bits a code / 1000"
            )
    accept(function, "the bit rate is right for three codecs")


def residual_codes(function: Callable) -> None:
    """Exercise: residual quantisation.

    Args:
        function: (latents Float[N, D], codebooks Float[K, card, D]) -> Int[K, N].
    """
    generator = torch.Generator().manual_seed(1)
    for n_q in (1, 2, 3, 4):
        latents = torch.randn(7, 3, generator=generator)
        shrinking = torch.tensor([1.0, 0.5, 0.25, 0.12])[:n_q, None, None]
        codebooks = torch.randn(n_q, 9, 3, generator=generator) * shrinking
        right = _quantise(latents, codebooks, lambda x, rest, entry: rest - entry)
        alone = _quantise(latents, codebooks, lambda x, rest, entry: rest)
        mistakes = {
            "Every codebook quantised the latents themselves. From the second on, each gets what "
            "those before it have left over: residual = residual - codebook[nearest]": alone,
            "The residual grew: subtract the chosen entry, do not add it": _quantise(
                latents, codebooks, lambda x, rest, entry: rest + entry
            ),
            f"Wrong from codebook 2 on: the residual is what all codebooks before have left, and "
            f"yours forgets all but the last ({n_q} codebooks)": _quantise(
                latents, codebooks, lambda x, rest, entry: x - entry
            ),
            "Those are the farthest entries: argmin of the distances, not argmax": _quantise(
                latents, codebooks, lambda x, rest, entry: rest - entry, farthest=True
            ),
            "The axes are swapped: got [N, K], expected [K, N], codebooks first as everywhere: "
            "torch.stack(codes, dim=0)": right.T,
        }
        got = call(function, latents, codebooks)
        compare(got, right, "the codes", "[K, N]", mistakes)
    accept(function, "the same codes as nearest neighbours of the residuals, 1 to 4 codebooks")


def delay_by_hand(function: Callable) -> None:
    """Exercise: the delay pattern.

    Args:
        function: (codes Int[B, K, T], special_token_id) -> Int[B, K, T + K].
    """
    from stage_lite.delay import shift

    for n_batch, n_q, n_frames in ((1, 3, 4), (2, 4, 6), (1, 1, 2), (1, 4, 0)):
        codes = torch.arange(n_batch * n_q * n_frames).view(n_batch, n_q, n_frames) + 1
        special = 999
        right = shift(codes, special)
        same_for_all = torch.full_like(right, special)
        same_for_all[:, :, 1 : 1 + n_frames] = codes
        rolled = torch.nn.functional.pad(codes, (0, n_q), value=special)
        rolled = torch.stack([rolled[:, k].roll(k + 1, -1) for k in range(n_q)], 1)[..., :n_frames]
        mistakes = {
            "Codebook 0 begins at step 0 here. In MusicGen step 0 is empty in all codebooks: it "
            "is what the first prediction is made from. Shift codebook k by k + 1": right[..., 1:],
            "All codebooks are shifted alike. That is no delay: codebook k comes k steps behind "
            "codebook 0": same_for_all,
            "The empty places hold 0, which is a code like any other: fill them with "
            "special_token_id": right.masked_fill(right == special, 0),
            "The end is cut off: late codebooks still have frames to write when codebook 0 is "
            "done. S = T + K steps": right[..., :n_frames],
            "The end is cut off: late codebooks still have frames to write. S = T + K": rolled,
            "The order is turned round: codebook 0, the coarsest, comes first": shift(
                codes.flip(1), special
            ).flip(1),
        }
        got = call(function, codes, special)
        compare(got, right, f"the sequence for K = {n_q}, T = {n_frames}", "[B, K, S]", mistakes)
    accept(function, "step for step as the library, also for one codebook and for no frames")


def known_frames(function: Callable) -> None:
    """Exercise: what is known when a code is chosen.

    Args:
        function: (k, t, n_q) -> for every codebook the number of its frames that are written.
    """
    for n_q in (4, 2, 3):
        for t in (10, 0, 1):
            for k in reversed(range(n_q)):  # the last one tells most mistakes apart
                got = _numbers(call(function, k, t, n_q), n_q)
                right = [max(0, t + k - j) for j in range(n_q)]
                if got == right:
                    continue
                who = f"codebook {k}, frame {t}, K = {n_q}: got {got}, expected {right}. "
                mistakes = {
                    "That is the order without delay, in which all codes of a frame are chosen "
                    "at once and know nothing of one another": [t] * n_q,
                    "That is the flat order, one code a step and K steps a frame. With the delay, "
                    "codebook j is j steps late, so earlier codebooks are further ahead than one "
                    "frame": [t + (j < k) for j in range(n_q)],
                    "The direction is turned round: codebook 0 is ahead of the others": [
                        max(0, t - k + j) for j in range(n_q)
                    ],
                    "A codebook cannot have written fewer than 0 frames": [
                        t + k - j for j in range(n_q)
                    ],
                    "One too many: the code that is being chosen is not known yet": [
                        max(0, t + k - j + 1) for j in range(n_q)
                    ],
                }
                why = next((s for s, wrong in mistakes.items() if got == wrong), None)
                raise NotYet(
                    who
                    + (why or "Draw the delayed sequence and count what stands left of the code")
                )
    accept(function, "as counted in the sequence itself, for 2 to 4 codebooks")


# --- helpers -----------------------------------------------------------------------------------


def _quantise(
    latents: Tensor, codebooks: Tensor, rest_of: Callable, farthest: bool = False
) -> Tensor:
    codes, rest = [], latents
    for codebook in codebooks:
        distance = torch.cdist(rest, codebook)
        chosen = distance.argmax(1) if farthest else distance.argmin(1)
        codes.append(chosen)
        rest = rest_of(latents, rest, codebook[chosen])
    return torch.stack(codes)


def _number(got: Any, what: str) -> float:
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise NotYet(f"{what}: got a {type(got).__name__}; expected a number")
    return float(got)


def _numbers(got: Any, n: int) -> list[int]:
    what = f"the numbers of frames: expected a list of {n} whole numbers, one per codebook"
    if got is None:
        raise NotYet(f"{what}; got None. Does the function end with `return ...`?")
    got = got.tolist() if isinstance(got, Tensor) else got
    if not isinstance(got, list | tuple) or len(got) != n:
        raise NotYet(f"{what}; got {got!r}")
    if any(isinstance(v, bool) or not isinstance(v, int) for v in got):
        raise NotYet(f"{what}; got {got!r}")
    return list(got)
