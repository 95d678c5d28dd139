"""Weights of a module in a safetensors file: written whole or not at all, checked when read.

No pickle is ever read here. Half-precision files are loaded into the precision of the module
(fp32). A module that has shapes and no memory yet (torch's meta device) takes the tensors over.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .errors import StageLiteError
from .files import atomic

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def save_weights(module: nn.Module, file: str | Path, dtype: str = "fp32") -> None:
    """Write a module's state dict.

    Args:
        module: any; only tensors are written.
        file: `*.safetensors`; appears whole or not at all.
        dtype: of the floating-point tensors in the file: "fp32", "bf16" or "fp16".
    """
    from safetensors.torch import save_file

    if dtype not in DTYPES:
        raise StageLiteError(f"dtype is {dtype!r}; expected one of {sorted(DTYPES)}")
    state = {}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(DTYPES[dtype])
        state[name] = tensor.contiguous().clone()  # safetensors refuses shared memory
    with atomic(file) as temporary:
        save_file(state, temporary)


def load_weights(module: nn.Module, file: str | Path) -> None:
    """Fill a module from a file that `save_weights` wrote. All or nothing.

    Raises:
        StageLiteError: the file is missing, cut short or no safetensors, or its tensors have other
            names or shapes than the module's; names the first one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(file)
    if not file.is_file():
        raise StageLiteError(f"there is no file {file}; expected weights in safetensors form")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise StageLiteError(
            f"{file} is cut short or no safetensors file ({error}); copy it again; "
            "pickled weights (.pt, .ckpt) are never read"
        ) from None
    own = module.state_dict()
    _check_shapes(own, {name: value.shape for name, value in state.items()}, file)
    empty = any(tensor.is_meta for tensor in own.values())
    module.load_state_dict(
        {name: value.to(own[name].dtype, copy=empty) for name, value in state.items()}, assign=empty
    )


def load_int8(lm: nn.Module, file: str | Path) -> None:
    """Fill an empty LMModel (meta device) from such a file with int8 matrices, layer by layer.

    The file is opened anew for each tensor, so that what was read leaves the memory again.

    Raises:
        StageLiteError: as `load_weights`.
    """
    from .held_weights import fill_int8
    from .interop.tensor_file import TensorFile

    file = Path(file)
    tensors = TensorFile(file)
    _check_shapes(lm.state_dict(), {name: tensors.shape(name) for name in tensors}, file)
    del tensors
    fill_int8(lm, lambda name: TensorFile(file)[name].clone())


def _check_shapes(own: dict, shapes: dict, file: Path) -> None:
    for name, tensor in own.items():
        if name not in shapes:
            raise StageLiteError(
                f"{file} has no tensor {name!r}; expected the {len(own)} tensors that config.json "
                "describes; the two files do not belong together"
            )
        if tuple(shapes[name]) != tuple(tensor.shape):
            raise StageLiteError(
                f"{file}: {name} has shape {list(shapes[name])}; expected "
                f"{list(tensor.shape)} from config.json; the two files do not belong together"
            )
    unknown = sorted(set(shapes) - set(own))
    if unknown:
        raise StageLiteError(
            f"{file} has {len(unknown)} tensors that config.json does not describe, first "
            f"{unknown[0]!r}; the two files do not belong together"
        )
