"""Training state in one safetensors file: written atomically, read without pickle, exact.

A checkpoint holds named tensors (weights, optimizer moments) and a JSON text (step, settings, the
history of losses). `safetensors` keeps the JSON in its header, so that one `os.replace` makes the
whole checkpoint visible at once: a process killed at any instant leaves the old one or the new one.
"""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from stage_lite.errors import StageLiteError


def save_checkpoint(path: str | Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write tensors and a JSON-able dict to `path`, atomically."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    contiguous = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    try:
        save_file(contiguous, part, metadata={"json": json.dumps(meta)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `save_checkpoint` wrote.

    Raises:
        StageLiteError: the file is missing, cut short, or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise StageLiteError(f"no checkpoint at {path}; expected a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["json"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise StageLiteError(
            f"{path} is no whole checkpoint ({type(error).__name__}: {error}); "
            "delete it to start anew, or copy it again"
        ) from None
    return tensors, meta


def pack(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put `prefix.` before every name of a flat state dict."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unpack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of `tensors` below `prefix.`, with the prefix taken off."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def pack_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors (moments, step counts), flat; learning rates are not state here."""
    return {
        f"{prefix}.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(
    prefix: str, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Put back what `pack_optimizer` took, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in unpack(prefix, tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
