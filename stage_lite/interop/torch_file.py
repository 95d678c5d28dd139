"""audiocraft's `.bin` files: read as tensors and plain values only, never as code.

A `.bin` written by torch is a zip of raw tensors beside a pickle. torch's `weights_only` reader
knows a fixed list of harmless entries (tensors, numbers, texts, dicts) and refuses all others
before anything runs. The files that Meta published hold nothing else.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing is unpickled here
from typing import Any

import torch

from ..errors import StageLiteError
from ..files import atomic
from .tensor_file import lfs_hint


def read_torch_file(file: str | Path) -> dict[str, Any]:
    """The dictionary in a torch file; its tensors stay on disk until they are used.

    Raises:
        StageLiteError: no such file, cut short, not a dictionary, or pickled with code.
    """
    file = Path(file)
    if not file.is_file():
        raise StageLiteError(f"there is no file {file}; expected weights as torch writes them")
    with open(file, "rb") as stream:
        zipped = stream.read(2) == b"PK"
    if zipped and not zipfile.is_zipfile(file):
        raise StageLiteError(
            f"{file} is cut short ({file.stat().st_size} bytes); copy or download it again"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", str(error))
        if found or zipped:
            what = found[1].rstrip(".") if found else "unknown objects"
            raise StageLiteError(
                f"{file} is pickled with code ({what}), which could do "
                "anything on this machine and is never run; expected tensors and plain values "
                "only. Try: the same model as safetensors, or export it with audiocraft.utils."
                "export from a program that you trust"
            ) from None
        raise StageLiteError(
            f"{file} is no torch file{lfs_hint(file)}; copy or download it again"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise StageLiteError(
            f"{file} is broken or cut short ({reason}); copy or download it again"
        ) from None
    if not isinstance(content, dict):
        raise StageLiteError(f"{file} holds a {type(content).__name__}; expected a dictionary")
    return content


def write_torch_file(file: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary of tensors and plain values, whole or not at all."""
    with atomic(file) as temporary:
        torch.save(content, temporary)
