"""The delay pattern: which code of which frame stands in which step of the model's sequence.

Notebook: 01_tokenization.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from stage_lite.errors import StageLiteError


def delay(codes: Int[Tensor, "B K T"], special_token_id: int) -> Int[Tensor, "B K S"]:
    """Shift codebook k right by k + 1 steps, so that step s needs nothing that comes after it.

        K=3, T=4 (S = special token):  [[S 1 2 3 4 S S]
                                        [S S 1 2 3 4 S]
                                        [S S S 1 2 3 4]]

    Args:
        codes: in [0, special_token_id), one column per frame (50 Hz for MusicGen).
        special_token_id: fills every place that holds no code; equals `card`.

    Returns:
        S = T + K steps, equal to audiocraft's DelayedPatternProvider; `undelay` inverts it exactly.

    Raises:
        StageLiteError: a code is out of range; names the first offender (b, k, t).

    Source: Copet et al. 2023, arXiv:2306.05284, sec. 2.2.   Notebook: 01_tokenization.
    """
    check_codes(codes, special_token_id)
    return shift(codes, special_token_id)


def undelay(
    sequence: Int[Tensor, "B K S"], special_token_id: int | None = None
) -> Int[Tensor, "B K T"]:
    """Take the codes out of a delayed sequence: the inverse of `delay`, T = S - K.

    Args:
        sequence: S >= K steps.
        special_token_id: if given, every place that can hold no code must hold this id.

    Raises:
        StageLiteError: the sequence is shorter than K steps, or holds a code where none belongs.
    """
    _, n_q, n_steps = sequence.shape
    n_frames = n_steps - n_q
    if n_frames < 0:
        raise StageLiteError(f"sequence of {n_steps} steps: expected at least n_q = {n_q}")
    codes = torch.stack([sequence[:, k, k + 1 : k + 1 + n_frames] for k in range(n_q)], dim=1)
    if special_token_id is not None:
        wrong = (shift(codes, special_token_id) != sequence).nonzero()
        if len(wrong):
            b, k, s = wrong[0].tolist()
            raise StageLiteError(
                f"sequence[{b}, {k}, {s}] is {int(sequence[b, k, s])}, where the delay leaves only "
                f"special_token_id = {special_token_id}: this is not a delayed sequence"
            )
    return codes


def shift(frames: Int[Tensor, "B K T"], special_token_id: int) -> Int[Tensor, "B K S"]:
    """`delay` of frames that may hold any id, the special and the context token too."""
    n_batch, n_q, n_frames = frames.shape
    sequence = frames.new_full((n_batch, n_q, n_frames + n_q), special_token_id)
    for k in range(n_q):
        sequence[:, k, k + 1 : k + 1 + n_frames] = frames[:, k]
    return sequence  # [B, K, S]


def check_codes(
    codes: Int[Tensor, "B K T"],
    special_token_id: int,
    name: str = "codes",
    highest: int | None = None,
) -> None:
    """Raise a StageLiteError that names the first code outside [0, highest], highest = card - 1."""
    highest = special_token_id - 1 if highest is None else highest
    if codes.numel() == 0:
        return
    low, high = codes.aminmax()
    if low >= 0 and high <= highest:
        return
    b, k, t = ((codes < 0) | (codes > highest)).nonzero()[0].tolist()
    raise StageLiteError(
        f"{name}[{b}, {k}, {t}] is {int(codes[b, k, t])}: expected codes in [0, {highest}]. "
        "Try: codes of this model's own codec, without special or context tokens"
    )
