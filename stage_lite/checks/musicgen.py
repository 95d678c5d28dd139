"""Checks of notebook 09: parameters from a shape, names of another program, bytes of a cache.

Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .base import NotYet, accept, call, same


def count_parameters(function: Callable) -> None:
    """Exercise: how many numbers a decoder holds.

    Args:
        function: (n_q, card, dim, n_layers) -> int, the feed-forward part four times as wide.
    """
    for n_q, card, dim, n_layers in ((3, 30, 10, 5), (4, 512, 256, 6), (4, 2048, 1024, 24)):
        got = _whole(call(function, n_q, card, dim, n_layers), "the number of parameters")
        square, tables, heads = dim**2, n_q * (card + 1) * dim, n_q * card * dim
        right = tables + n_layers * (16 * square + 6 * dim) + 2 * dim + heads
        _explain(
            got,
            right,
            {
                right - n_layers * 4 * square: "One attention a layer is missing: it has two, one "
                "over the steps so far and one over the text, of 4 dim^2 each",
                right - n_layers * (4 * square + 2 * dim): "The attention over the text is "
                "missing: 4 dim^2 and a norm of its own",
                right - n_q * dim: "A table has card + 1 rows: the special token has one",
                right + n_q * dim: "A head has card columns, not card + 1: the special token is "
                "read and never written",
                right + n_layers * 13 * dim: "These matrices have no biases; only the norms have",
                right - n_layers * 3 * dim - dim: "A norm holds 2 dim numbers: a scale and a shift",
                right - 2 * dim: "The last norm, before the heads, is missing",
                right - heads: "The heads are missing: K of them, card x dim",
                right - tables: "The tables are missing: K of them, (card + 1) x dim",
                right - (n_q - 1) * (2 * card + 1) * dim: "There is one table and one head for "
                "each of the K codebooks",
                right - n_layers * 6 * dim - 2 * dim: "The norms are missing: three a layer and "
                "one at the end, a scale and a shift each",
                right + n_layers * 8 * square: "The feed-forward part was counted twice: it is "
                "dim -> 4 dim -> dim, 8 dim^2",
                right - n_layers * 6 * square: "The feed-forward part is four times as wide: "
                "dim x 4 dim, and back, 8 dim^2 a layer",
                right - (n_layers - 1) * (16 * square + 6 * dim): "That is one layer; there are "
                "n_layers of them",
            },
            f"K = {n_q}, card = {card}, dim = {dim}, {n_layers} layers",
        )
    accept(function, "the parameters of three decoders, MusicGen-small's among them")


def rename_layer(function: Callable) -> None:
    """Exercise: a layer of audiocraft under the names of the official STAGE.

    Args:
        function: (state name -> tensor, layer i) -> the layer's tensors under the new names.
    """
    generator = torch.Generator().manual_seed(9)
    for i, dim in ((0, 2), (1, 4), (2, 6)):
        state = _layer(i, dim, generator) | {"out_norm.bias": torch.ones(dim)}
        right = _official(state, i)
        got = call(function, state, i)
        if got is None:
            raise NotYet("got None. Does the function end with `return ...`?")
        if not isinstance(got, Mapping):
            raise NotYet(f"got a {type(got).__name__}; expected a dictionary, name -> tensor")
        _compare_names(got, right, i)
        for name, tensor in right.items():
            _compare_tensor(got[name], tensor, name, state, i)
    accept(function, "every tensor of three layers stands under its new name, to the last bit")


def cache_bytes(function: Callable) -> None:
    """Exercise: memory of keys and values.

    Args:
        function: (n_layers, n_heads, head_dim, rows, steps, bytes per number) -> int.
    """
    for layers, heads, width, rows, steps, size in (
        (3, 5, 7, 11, 13, 4),
        (6, 4, 64, 2, 804, 4),
        (24, 16, 64, 2, 1005, 2),
    ):
        got = _whole(call(function, layers, heads, width, rows, steps, size), "the bytes")
        right = 2 * layers * rows * steps * heads * width * size
        _explain(
            got,
            right,
            {
                right // 2: "That is the keys or the values; the cache holds both",
                right // heads: "That is one head; each of them has keys and values of its own",
                right // layers: "That is one layer; each of them keeps its own",
                right // rows: "Each row has a cache of its own; guidance makes two of one",
                right // size: "That is how many numbers; each takes `bytes_per_number` bytes",
                right * steps: "The cache grows with the steps, not with their square: a step adds "
                "one key and one value",
                right * 4: "Each step has one key and one value, whatever the number of codebooks: "
                "their vectors were added up before the first layer",
                right * 8: "Those are bits",
                right * 3 // 2: "Queries are not kept: a step asks once",
            },
            f"{layers} layers, {heads} heads of {width}, {rows} rows, {steps} steps, {size} bytes",
        )
    accept(function, "the bytes of three caches")


# --- helpers -----------------------------------------------------------------------------------

_LAYERS = "lm.decoder.attn_layers.layers"
_ATTENTIONS = ("self_attn", "cross_attention")
_NORMS = ("norm1", "norm_cross", "norm2")


def _whole(got: Any, what: str) -> int:
    """A whole number, also as a float or a tensor of one."""
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    if isinstance(got, Tensor) and got.numel() == 1 and not got.is_complex():
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise NotYet(f"{what}: got a {type(got).__name__}; expected a whole number")
    if got != got or got != round(got):
        raise NotYet(f"{what}: got {got:g}; expected a whole number")
    return int(got)


def _explain(got: int, right: int, mistakes: Mapping[int, str], case: str) -> None:
    if got == right:
        return
    sentence = mistakes.get(got)
    if sentence:
        raise NotYet(f"{sentence} ({case})")
    way = "too many" if got > right else "too few"
    raise NotYet(f"{case}: got {got:,}, expected {right:,}: {abs(got - right):,} {way}")


def _layer(i: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    shapes = {f"{norm}.{part}": (dim,) for norm in _NORMS for part in ("weight", "bias")}
    for attention in _ATTENTIONS:
        shapes[f"{attention}.in_proj_weight"] = (3 * dim, dim)
        shapes[f"{attention}.out_proj.weight"] = (dim, dim)
    shapes |= {"linear1.weight": (4 * dim, dim), "linear2.weight": (dim, 4 * dim)}
    return {
        f"transformer.layers.{i}.{name}": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def _official(state: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    from ..interop.names import OFFICIAL_STAGE

    out = {}
    for own, theirs in OFFICIAL_STAGE.layer(i).items():
        parts = state[f"transformer.layers.{i}.{own}"].chunk(len(theirs))
        out |= dict(zip(theirs, parts, strict=True))
    return out


def _compare_names(got: Mapping[Any, Any], right: Mapping[str, Tensor], i: int) -> None:
    missing, extra = sorted(set(right) - set(got)), sorted(map(str, set(got) - set(right)))
    if not missing and not extra:
        return
    if any("in_proj" in name for name in extra):
        raise NotYet(
            "in_proj_weight is still one matrix. Its rows are queries, keys and values, dim each, "
            "below one another: three tensors there, to_q, to_k and to_v"
        )
    numbers = {name.removeprefix(f"{_LAYERS}.").split(".")[0] for name in map(str, got)}
    entries = [str(3 * i + part) for part in range(3)]
    if numbers == {entries[0]}:
        raise NotYet(
            f"All of yours stand in entry {3 * i}, where some have one name and overwrite each "
            f"other. Entry {3 * i} is self-attention, {3 * i + 1} cross-attention, {3 * i + 2} "
            "feed-forward"
        )
    if numbers and all(n.isdigit() for n in numbers) and numbers != set(entries):
        raise NotYet(
            f"Layer {i} of audiocraft is three entries there, {', '.join(entries)}: for self-"
            "attention, cross-attention and feed-forward; yours stand in "
            f"{', '.join(sorted(numbers, key=int))}"
        )
    if extra and not missing:
        raise NotYet(f"{extra[0]!r} is no part of layer {i}: leave it out")
    near = f"; yours has {extra[0]!r}" if extra else ""
    raise NotYet(f"layer {i}: there is no {missing[0]!r}{near}")


def _compare_tensor(
    got: Any, right: Tensor, name: str, state: Mapping[str, Tensor], i: int
) -> None:
    short = name.removeprefix(f"{_LAYERS}.")
    if not isinstance(got, Tensor):
        raise NotYet(f"{short} is a {type(got).__name__}; expected a torch.Tensor")
    if same(got, right, atol=0.0):
        return
    letter = next((x for x in "qkv" if f"to_{x}.weight" in name), None)
    if letter is not None:
        attention = _ATTENTIONS[int(name.removeprefix(f"{_LAYERS}.").split(".")[0]) - 3 * i]
        whole = state[f"transformer.layers.{i}.{attention}.in_proj_weight"]
        thirds = whole.chunk(3)
        if any(same(got, part, 0.0) for part in thirds):
            raise NotYet(
                f"{short} holds another third of the matrix: queries come first, then keys, then "
                "values"
            )
        if any(same(got, whole[start::3], 0.0) for start in range(3)):
            raise NotYet(
                f"{short} holds every third row. Queries, keys and values are blocks of dim rows "
                "below one another: chunk, not [::3]"
            )
        if got.shape != right.shape and got.shape == whole.chunk(3, dim=1)[0].shape:
            raise NotYet(
                f"{short}: the matrix [3 dim, dim] was cut across its columns; cut its rows, "
                "chunk(3, dim=0)"
            )
    if got.shape == right.t().shape and same(got, right.t(), 0.0):
        raise NotYet(f"{short} is transposed; both programs store [out, in]")
    if got.shape != right.shape:
        raise NotYet(f"{short}: got the shape {list(got.shape)}; expected {list(right.shape)}")
    raise NotYet(f"{short} holds another tensor than it should, or changed numbers")
