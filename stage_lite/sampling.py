"""From logits to codes: temperature, top-k, top-p, and a source of chance of its own for every row.

Notebook: 02_language_model.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stage_lite.errors import StageLiteError

_BLOCK = 64  # steps for which a sampler draws noise at once


def sample(
    logits: Float[Tensor, "B K card"],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B K"]:
    """Draw one code for every row and codebook.

    Args:
        logits: unnormalised.
        temperature: divides the logits; 0 takes the most likely code (greedy).
        top_k: only the k most likely codes; 0: all.
        top_p: of what top_k left, only the most likely codes that together reach this probability;
            0 or 1: all.
        generator: source of chance; None: torch's global one.

    Raises:
        StageLiteError: temperature, top_k or top_p is out of range.
    """
    check_sampling(temperature, top_k, top_p)
    logits, ids = _candidates(logits, temperature, top_k, top_p)
    if temperature > 0:
        logits = logits + _gumbel(torch.empty_like(logits).uniform_(generator=generator))
    return _most_likely(logits, ids).squeeze(-1)


class Sampler:
    """`sample` for many steps, each row with its own source of chance.

    What a row draws does not depend on the rows beside it.

    Args:
        temperature, top_k, top_p: see `sample`.
        generators: one per row.
    """

    def __init__(
        self,
        temperature: float,
        top_k: int,
        top_p: float,
        generators: Sequence[torch.Generator],
    ):
        check_sampling(temperature, top_k, top_p)
        self.settings = (temperature, int(top_k), top_p)
        self.greedy = temperature == 0
        self.generators = list(generators)
        self.noise: list[Tensor] = []  # of the steps to come, the next one last

    def __call__(self, logits: Float[Tensor, "B K card"]) -> Int[Tensor, "B K 1"]:
        """One code for every row and codebook."""
        logits, ids = _candidates(logits, *self.settings)
        if not self.greedy:
            if not self.noise:
                self.noise = self._draw(logits)
            logits = logits + self.noise.pop()
        return _most_likely(logits, ids)

    def _draw(self, like: Tensor) -> list[Tensor]:
        noise = torch.empty(_BLOCK, *like.shape, dtype=like.dtype, device=like.device)
        for row, generator in enumerate(self.generators):
            one = torch.empty(_BLOCK, *like.shape[1:], dtype=like.dtype, device=like.device)
            noise[:, row] = one.uniform_(generator=generator)
        return list(_gumbel(noise))[::-1]


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


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise: added to logits, their argmax falls on each code with its softmax probability.

    So neither a softmax nor a search in cumulated sums is needed to draw.
    """
    return uniform.log_().neg_().log_().neg_()


def _candidates(
    logits: Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor | None]:
    """Logits of the codes that may be drawn, and their ids if they are not all of 0, 1, 2, ..."""
    if temperature == 0:
        return logits, None
    logits, ids = logits.float(), None
    if temperature != 1:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        logits, ids = logits.topk(top_k, dim=-1, sorted=False)
    if 0 < top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True)
        probs = ranked.softmax(-1)
        beyond = probs.cumsum(-1) - probs > top_p  # the first code stays, whatever its probability
        logits = logits.scatter(-1, order, ranked.masked_fill(beyond, -torch.inf))
    return logits, ids


def _most_likely(logits: Tensor, ids: Tensor | None) -> Tensor:
    chosen = logits.argmax(-1, keepdim=True)  # [B, K, 1]
    return chosen if ids is None else ids.gather(-1, chosen)
