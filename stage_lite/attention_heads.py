"""What single heads are worth: cut them, and measure how much less the model listens.

A head's output is a slice of what a layer's output matrix reads. With that slice of the matrix set
to zero the head says nothing, to the forward pass, to generation and to audiocraft's own methods
alike.

That a head looks at the context does not show that the model needs it; a loss that rises when it is
cut does, if cutting as many other heads raises it less.

Source: Michel et al. 2019, Are Sixteen Heads Really Better than One?, arXiv:1905.10650.
Notebook: 06_attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batch import hide_history, make_batch
from .errors import StageLiteError
from .examples import Example, shuffle_contexts
from .lm_weights import check_whole, inside
from .metrics.bootstrap import Bootstrap

if TYPE_CHECKING:
    from pandas import DataFrame

    from .model import StageModel

Heads = Sequence[tuple[int, int]]  # (layer, head), both from 0


@contextmanager
def without_heads(model: StageModel, heads: Heads) -> Iterator[StageModel]:
    """Within the block the model computes as if these heads of its self-attention gave zeros.

        from stage_lite.attention import without_heads
        with without_heads(model, [(3, 0), (3, 2)]):
            out = model.generate(...)

    Weights are back with every bit when the block is left, by an error too. Blocks may be nested.
    Don't train inside: what the cut columns learn is lost.

    Args:
        model: changed in place.
        heads: pairs (layer, head); none is allowed.

    Raises:
        StageLiteError: a pair that the model does not have, or weights that are there in int8 only.
    """
    check_whole(model.lm)
    layers = model.lm.transformer.layers
    undo = []
    try:
        for layer, of_layer in _by_layer(model, heads).items():
            attn = inside(layers[layer].self_attn)
            width = model.lm.dim // attn.num_heads
            columns = torch.cat([torch.arange(h * width, (h + 1) * width) for h in of_layer])
            undo.append(_silence(attn.out_proj, columns.to(model.device)))
        yield model
    finally:
        for restore in reversed(undo):
            restore()


def head_effects(
    model: StageModel,
    examples: Sequence[Example],
    cuts: Heads | Mapping[str, Heads],
    *,
    history_hidden: bool = True,
    n_random: int = 3,
    batch_size: int = 8,
    seed: int = 0,
) -> DataFrame:
    """What cutting heads does to the loss with the right context and with another song's.

    Args:
        model: in eval mode; unchanged afterwards.
        examples: windows with contexts, of at least two songs.
        cuts: heads to cut together, or several such lists by name. For one list per head:
            `{f"{l}.{h}": [(l, h)] for l in range(layers) for h in range(heads)}` with n_random=0.
        history_hidden: with the target's own past hidden, so that the context is all there is to go
            by; False: as in training and generation.
        n_random: beside each cut, the mean of so many cuts of as many other heads, drawn at random:
            what cutting alone does. 0, or where too few others are left: no such line.
        batch_size: windows per pass.
        seed: of the draws and of the intervals.

    Returns:
        One line per cut, with a first line "nothing cut" (the ceiling) and a last one "all heads
        cut" (the floor: only the delay's overlap tells of the context). Columns: n_heads; right and
        another, losses in nats over all codes; gap = another - right, what the context is worth,
        with low and high, its 95 % interval over songs; kept, the gap as a share of the way from
        floor to ceiling.

    Raises:
        StageLiteError: heads that are not there, no cut, examples without context, one song only.
    """
    import pandas as pd

    named = dict(cuts) if isinstance(cuts, Mapping) else {"cut": list(cuts)}
    if not named or any(len(heads) == 0 for heads in named.values()):
        raise StageLiteError("cuts names no head; expected pairs (layer, head)")
    for name, heads in named.items():
        _by_layer(model, heads)
        if name in (CEILING, FLOOR):
            raise StageLiteError(f"a cut is called {name!r}: that is a line of the table itself")
    if any(e.context is None and e.context_codes is None for e in examples):
        raise StageLiteError("an example has no context; expected windows with contexts")
    if n_random < 0 or batch_size < 1:
        raise StageLiteError(
            f"n_random is {n_random}, batch_size {batch_size}: expected at least 0 and 1"
        )
    every = [
        (layer, head)
        for layer, module in enumerate(model.lm.transformer.layers)
        for head in range(inside(module.self_attn).num_heads)
    ]
    pairs = _Pairs(model, examples, history_hidden, batch_size)
    generator = torch.Generator().manual_seed(seed)
    measured: dict[str, tuple[int, Tensor]] = {CEILING: (0, pairs.losses([]))}
    for name, heads in named.items():
        heads = sorted(set(heads))
        measured[name] = len(heads), pairs.losses(heads)
        others = [head for head in every if head not in heads]
        if n_random and len(others) >= len(heads):
            drawn = []
            for _ in range(n_random):
                order = torch.randperm(len(others), generator=generator).tolist()
                drawn.append(pairs.losses([others[i] for i in order[: len(heads)]]))
            measured[f"{name}: as many others"] = len(heads), torch.stack(drawn).mean(0)
    measured[FLOOR] = len(every), pairs.losses(every)

    bootstrap = Bootstrap([example.song_id for example in examples], seed=seed)
    lines = {}
    for name, (n_heads, losses) in measured.items():  # [2, N]: right and another
        right, another = losses.mean(1).tolist()
        interval = bootstrap.mean((losses[1] - losses[0]).numpy())
        lines[name] = {
            "n_heads": n_heads, "right": right, "another": another, "gap": interval["value"],
            "low": interval["low"], "high": interval["high"],
        }  # fmt: skip
    table = pd.DataFrame.from_dict(lines, orient="index")
    floor, ceiling = table.gap[FLOOR], table.gap[CEILING]
    table["kept"] = (table.gap - floor) / (ceiling - floor)
    return table


CEILING, FLOOR = "nothing cut", "all heads cut"


class _Pairs:
    """The same targets with the right and with another song's context, ready for many passes."""

    def __init__(
        self, model: StageModel, examples: Sequence[Example], hidden: bool, batch_size: int
    ):
        from .listening import code_losses

        self.losses_of = code_losses
        self.model = model
        self.batches = []
        for rows in (examples, shuffle_contexts(examples)):
            batches = []
            for start in range(0, len(rows), batch_size):
                batch = make_batch(model, rows[start : start + batch_size])
                if hidden:
                    everything = torch.ones_like(batch.prefix.attention_mask)
                    batch = hide_history(batch, everything, model.special_token_id)
                batches.append(batch)
            self.batches.append(batches)

    @torch.inference_mode()
    def losses(self, heads: Heads) -> Tensor:
        """Mean loss of each window without these heads, Float[2, N]: right and another context."""
        with without_heads(self.model, heads):
            return torch.stack(
                [
                    torch.cat(
                        [self.losses_of(self.model, b).flatten(1).nanmean(1).cpu() for b in batches]
                    )
                    for batches in self.batches
                ]
            ).double()


def _by_layer(model: StageModel, heads: Heads) -> dict[int, list[int]]:
    """Checked heads of each layer, each once."""
    layers = model.lm.transformer.layers
    found: dict[int, set[int]] = {}
    for pair in heads:
        if not _is_pair(pair):
            raise StageLiteError(f"heads holds {pair!r}: expected pairs (layer, head), both from 0")
        layer, head = (int(i) for i in pair)
        n_heads = inside(layers[0].self_attn).num_heads
        if not (0 <= layer < len(layers) and 0 <= head < n_heads):
            raise StageLiteError(
                f"there is no head ({layer}, {head}): this model has {len(layers)} layers of "
                f"{n_heads} heads, both counted from 0"
            )
        found.setdefault(layer, set()).add(head)
    return {layer: sorted(of_layer) for layer, of_layer in found.items()}


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, Sequence)
        and not isinstance(pair, str)
        and len(pair) == 2
        and all(isinstance(i, Integral) and not isinstance(i, bool) for i in pair)
    )


def _silence(out_proj: nn.Module, columns: Tensor) -> Any:
    """Make a layer's output matrix blind to these columns; returns what undoes it."""
    if type(out_proj) is nn.Linear:  # the forward pass reads its weight
        weight = out_proj.weight
        with torch.no_grad():
            before = weight[:, columns].clone()
            weight[:, columns] = 0

        def restore() -> None:
            with torch.no_grad():
                weight[:, columns] = before

        return restore

    def blind(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].index_fill(-1, columns, 0.0), *inputs[1:])

    return out_proj.register_forward_pre_hook(blind).remove  # a wrapper, which is called
