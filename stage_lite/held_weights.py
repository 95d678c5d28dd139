"""The weights of an LMModel as generation holds them: converted once, and given up if wanted.

`held_weights(lm, "int8")` converts at the first call; a second one finds what the first made, as
long as no weight has changed in between. Only the last conversion of a model is kept, so what is
held is the model itself and at most one copy: none for fp32, half for bf16, a quarter for int8.

`give_up(lm)` goes further: it converts layer by layer and lets each fp32 matrix go at once, so that
a MusicGen-small that takes 1.7 GB in fp32 never takes more than 0.5 GB. What is left can generate,
not train. `stage_lite.load(..., dtype="int8")` does it while the file is read.

Notebook: 02_language_model.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage_lite.errors import StageLiteError
from stage_lite.lm_weights import LayerWeights, LMWeights, Norm, check_whole, weights_of
from stage_lite.matrices import DTYPES, WEIGHTS, AddingLinear, activation_dtype, linear_for


@dataclass
class _Held:
    """What was made of an LMModel's weights."""

    weights: str
    stamp: tuple | None  # of the weights that it was made from; None: they were given up
    w: LMWeights


_HELD: weakref.WeakKeyDictionary[nn.Module, _Held] = weakref.WeakKeyDictionary()


def gave_up(lm: nn.Module) -> bool:
    """Whether an LMModel's matrices are there in int8 only."""
    return lm in _HELD and _HELD[lm].stamp is None


def check_weights(lm: nn.Module, weights: str | None) -> str:
    """How the weights shall be held: the name, checked; None is as the model is.

    Raises:
        StageLiteError: an unknown name, int8 on a GPU, or fp32 of a model that was loaded as int8.
    """
    if weights is not None and weights not in WEIGHTS:
        raise StageLiteError(
            f"weights is {weights!r}; expected one of {', '.join(map(repr, WEIGHTS))}"
        )
    if gave_up(lm):
        if weights not in (None, "int8"):
            raise StageLiteError(
                f"weights is {weights!r}, but this model was loaded as 'int8' and holds nothing "
                "else; expected that or no `weights`. Try: stage_lite.load(...) without dtype"
            )
        return "int8"
    table = lm.emb[0].weight
    if weights == "int8" and table.device.type != "cpu":
        raise StageLiteError(
            f"weights is 'int8', which is for CPUs, and the model is on {table.device}; expected "
            "'fp32' or 'bf16' there"
        )
    if weights is not None:
        return weights
    names = {dtype: name for name, dtype in DTYPES.items()}
    if table.dtype not in names:
        raise StageLiteError(
            f"the model's weights are {table.dtype}; expected one of {list(names)}. "
            "Try: model.lm.float()"
        )
    return names[table.dtype]


@torch.inference_mode()
def held_weights(lm: nn.Module, weights: str | None = None) -> LMWeights:
    """The weights for `decoder.Decoder`, converted if they are not at hand.

    Args:
        lm: audiocraft's LMModel.
        weights: "fp32", "bf16" or "int8"; None: as the model is.

    Raises:
        StageLiteError: see `check_weights`.
    """
    weights = check_weights(lm, weights)
    held = _HELD.get(lm)
    if gave_up(lm):
        return held.w
    check_whole(lm)
    stamp = _stamp(lm)
    if held is None or (held.weights, held.stamp) != (weights, stamp):
        _HELD.pop(lm, None)  # let the old copy go before the new one is made
        held = None
        held = _HELD[lm] = _Held(weights, stamp, _convert(lm, weights))
    return held.w


@torch.no_grad()
def give_up(lm: nn.Module, read: Callable[[str], Tensor] | None = None) -> nn.Module:
    """Turn an LMModel's matrices into int8 in place, for generation only, one layer at a time.

    Embeddings, norms and the text reader stay as they are.

    Args:
        lm: audiocraft's LMModel on a CPU; with `read` its layers may be empty (meta device), the
            rest must be there.
        read: gives the tensor of a name of lm's state dict; for layers that are still empty.

    Returns:
        The same LMModel.

    Raises:
        StageLiteError: the model is on a GPU, or it has modules that are no plain matrices (LoRA:
            merge it first).
    """
    if gave_up(lm):
        return lm
    check_weights(lm, "int8")
    wrapped = [
        name
        for name, module in lm.transformer.layers.named_modules()
        if name.endswith(("linear1", "linear2", "out_proj")) and not isinstance(module, nn.Linear)
    ]
    if wrapped:
        raise StageLiteError(
            f"{wrapped[0]} of the layers is no plain matrix but wrapped (LoRA?), which cannot "
            "become int8 for good. Try: merge it, or generate(weights='int8')"
        )
    _HELD.pop(lm, None)
    w = _convert(lm, "int8", _emptied(lm, read))
    for head in lm.linears:
        _empty(head)
    _HELD[lm] = _Held("int8", None, w)
    return lm


@torch.no_grad()
def fill_int8(lm: nn.Module, read: Callable[[str], Tensor]) -> None:
    """Give an LMModel that has no memory yet (meta device) its tensors, its matrices as int8.

    Args:
        read: the tensor of a name of lm's state dict, of any float type.
    """
    rest = {
        name: read(name).float().clone()
        for name, tensor in lm.state_dict().items()
        if tensor.is_meta and not name.startswith("transformer.layers.")
    }
    lm.load_state_dict(rest, strict=False, assign=True)
    give_up(lm, read)


def _emptied(lm: nn.Module, read: Callable[[str], Tensor] | None) -> Iterator[nn.Module]:
    """lm's layers, each filled before and emptied after it was looked at."""
    for i, layer in enumerate(lm.transformer.layers):
        if read is not None:
            names = [name for name, tensor in layer.state_dict().items() if tensor.is_meta]
            state = {name: read(f"transformer.layers.{i}.{name}") for name in names}
            layer.load_state_dict(state, strict=False, assign=True)
        yield layer
        for name, module in layer.named_modules():
            if "norm" not in name:
                _empty(module)


def _empty(module: nn.Module) -> None:
    """Let a module's own tensors go; their shapes stay."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        empty = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        setattr(module, name, empty)


def _convert(lm: nn.Module, weights: str, layers: Iterator[nn.Module] | None = None) -> LMWeights:
    w = weights_of(lm, lambda matrix, bias: linear_for(matrix, bias, weights), layers)
    dtype = activation_dtype(weights, w.table.device)
    w.table, w.out_norm = w.table.to(dtype), _norm(w.out_norm, dtype)
    for layer in w.layers:
        layer.norm1, layer.norm_cross, layer.norm2 = (
            _norm(norm, dtype) for norm in (layer.norm1, layer.norm_cross, layer.norm2)
        )
        _quicken_gelu(layer)
    return w


def _norm(norm: Norm, dtype: torch.dtype) -> Norm:
    weight, bias, epsilon = norm
    return weight.detach().to(dtype), bias.detach().to(dtype), epsilon


def _stamp(lm: nn.Module) -> tuple:
    """Changes with every weight, whether it is replaced, trained or written over through `.data`.

    The sums catch the last, which leave no other trace; they cost one reading of the weights.
    """
    named = [
        (name, p) for name, p in lm.named_parameters() if not name.startswith("condition_provider.")
    ]
    sums = torch.stack([p.sum(dtype=torch.float32) for _, p in named]).tolist() if named else []
    return tuple(
        (name, p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype, p.device, total)
        for (name, p), total in zip(named, sums, strict=True)
    )


# --- the activation between two small matrices ---------------------------------------------------

_SMALL = 1 << 20  # elements of a matrix up to which calls cost more than reading


def _gelu(x: Tensor) -> Tensor:
    """F.gelu, which on two rows spends most of its time in looking its kernel up."""
    return torch.addcmul(x, x, (x * math.sqrt(0.5)).erf_()).mul_(0.5)


def _scaled_gelu(x: Tensor) -> Tensor:
    """sqrt(2) gelu(sqrt(2) x): the constants are in the matrices before and behind."""
    return torch.addcmul(x, x, torch.erf(x))


def _quicken_gelu(layer: LayerWeights) -> None:
    """Replace F.gelu between two small matrices by what computes the same in fewer calls."""
    if layer.activation is not F.gelu or 4 * layer.norm2[0].numel() ** 2 > _SMALL:
        return
    layer.activation = _gelu
    up, down = layer.up, layer.down
    if type(up) is type(down) is AddingLinear and up.weight.numel() <= _SMALL:
        half = math.sqrt(0.5)
        layer.up = AddingLinear(up.weight * half, None if up.bias is None else up.bias * half)
        layer.down = AddingLinear(down.weight * half, down.bias)
        layer.activation = _scaled_gelu
