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
        top_k: only the k most likely codes; 0: all.
        top_p: of what top_k left, only the most likely codes that together reach this probability;
            0 or 1: all.
        generator: one for all, or one per row, so that a row draws the same whatever stands
            beside it.

    Raises:
        StageLiteError: temperature, top_k or top_p is out of range.
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    ids = None
    if 0 < top_k < logits.shape[-1]:
        logits, ids = logits.topk(top_k, dim=-1, sorted=False)
    if 0 < top_p < 1:
        logits = _nucleus(logits, top_p)
    # Gumbel's trick: add noise -log(-log u) to the logits, and the argmax falls on each code with
    # its softmax probability. Neither a softmax nor a search in cumulated sums is needed.
    noise = torch.empty_like(logits)
    if generator is None or isinstance(generator, torch.Generator):
        noise.uniform_(generator=generator)
    else:
        for row, own in zip(noise, generator, strict=True):
            row.uniform_(generator=own)
    chosen = (logits - noise.log_().neg_().log_()).argmax(-1, keepdim=True)
    return (chosen if ids is None else ids.gather(-1, chosen)).squeeze(-1)


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


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    ranked, order = logits.sort(dim=-1, descending=True)
    probs = ranked.softmax(-1)
    beyond = probs.cumsum(-1) - probs > top_p  # the first code stays, whatever its probability
    return torch.empty_like(logits).scatter_(-1, order, ranked.masked_fill(beyond, -torch.inf))
