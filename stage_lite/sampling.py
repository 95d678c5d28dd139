"""From logits to codes: temperature, top-k, top-p, and a source of chance of its own for every row.

Notebook: 04_generation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stage_lite.errors import StageLiteError


def sample(
    logits: Float[Tensor, "B K card"],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Int[Tensor, "B K"]:
    """Draw one code for every row and codebook.

    Args:
        logits: unnormalised.
        temperature: divides the logits; 0 takes the most likely code (greedy).
        top_k: only the k most likely codes (and their ties); 0: all.
        top_p: of what top_k left, only the most likely codes that together reach this probability;
            0 or 1: all.
        generator: one for all, or one per row, so that a row draws the same whatever stands beside it.

    Raises:
        StageLiteError: temperature, top_k or top_p is out of range.
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probs = logits.softmax(-1)
    if 0 < top_p < 1:
        probs = _nucleus(probs, top_p)
    # The argmax of p / e with e exponential falls on each code with its probability p: one pass over
    # all rows, without normalising again and without a search in cumulated sums.
    noise = torch.empty_like(probs)
    if generator is None or isinstance(generator, torch.Generator):
        noise.exponential_(generator=generator)
    else:
        for row, own in zip(noise, generator, strict=True):
            row.exponential_(generator=own)
    return (probs / noise.clamp_(min=1e-30)).argmax(-1)


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raise a StageLiteError for a value that `sample` cannot use."""
    if not 0 <= temperature < float("inf"):
        raise StageLiteError(
            f"temperature is {temperature}: expected 0 (greedy) or a positive number"
        )
    if top_k < 0 or int(top_k) != top_k:
        raise StageLiteError(f"top_k is {top_k}: expected 0 (all codes) or a positive integer")
    if not 0 <= top_p <= 1:
        raise StageLiteError(f"top_p is {top_p}: expected a probability in [0, 1]")


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    ranked, order = probs.sort(dim=-1, descending=True)
    beyond = ranked.cumsum(-1) - ranked > top_p  # the first code stays, whatever its probability
    return torch.zeros_like(probs).scatter(-1, order, ranked.masked_fill(beyond, 0))
