"""Tensors in safetensors files, each read when it is asked for, so that nothing is held twice.

Names, shapes and types stand in a file's header: sizes and errors are known before any weight is
read. A file that is cut short is found out when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import StageLiteError

INDEX = "model.safetensors.index.json"  # of weights in several files


class TensorFile(Mapping[str, Tensor]):
    """Name -> tensor over one or several safetensors files.

    Raises:
        StageLiteError: a file is missing, cut short or no safetensors.
    """

    def __init__(self, *files: str | Path):
        from safetensors import SafetensorError, safe_open

        self.files = [Path(file) for file in files]
        self._opened, self._file_of = [], {}
        for file in self.files:
            if not file.is_file():
                raise StageLiteError(f"there is no file {file}; expected weights as safetensors")
            try:
                opened = safe_open(file, framework="pt")
            except SafetensorError as error:
                raise StageLiteError(
                    f"{file} is cut short or no safetensors file ({error}; "
                    f"{file.stat().st_size} bytes){lfs_hint(file)}; copy or download it again; "
                    "pickled weights (.pt, .ckpt) are never read"
                ) from None
            self._opened.append(opened)
            self._file_of.update(dict.fromkeys(opened.keys(), opened))

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __contains__(self, name: object) -> bool:  # Mapping's would read the tensor
        return name in self._file_of

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._file_of[name].get_slice(name).get_shape())

    def metadata(self) -> dict[str, str]:
        """The texts that the files carry beside their tensors."""
        return {k: v for opened in self._opened for k, v in (opened.metadata() or {}).items()}


def shape_of(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Shape of a tensor of a state dict or of a file, without reading the latter."""
    return state.shape(name) if isinstance(state, TensorFile) else tuple(state[name].shape)


def n_elements(state: Mapping[str, Tensor], beginning: str | tuple[str, ...] = "") -> int:
    """Numbers in all tensors whose name begins so."""
    total = 0
    for name in state:
        if name.startswith(beginning):
            total += int(torch.Size(shape_of(state, name)).numel())
    return total


def open_folder(folder: Path) -> TensorFile:
    """model.safetensors of a folder, or the files that its index names.

    Raises:
        StageLiteError: weights are missing; names the files.
    """
    if not (folder / INDEX).is_file():
        return TensorFile(folder / "model.safetensors")
    names = weight_files(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise StageLiteError(
            f"{folder} lacks {len(missing)} of its {len(names)} weight files, first {missing[0]}; "
            "the download was not finished. Try: download the folder again"
        )
    return TensorFile(*(folder / name for name in names))


def weight_files(folder: Path) -> list[str]:
    """The files that the index of a folder names."""
    index = folder / INDEX
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise StageLiteError(f"{index} is no index of weights ({error}); copy it again") from None


def lfs_hint(file: Path) -> str:
    """A remark if a file is what git leaves where it did not fetch a large one."""
    with open(file, "rb") as stream:
        pointer = stream.read(40).startswith(b"version https://git-lfs")
    return ": it is a pointer of Git LFS, not the file itself (git lfs pull)" if pointer else ""


class Prefixed(Mapping[str, Tensor]):
    """The entries of a mapping below a prefix, with the prefix taken off; reads nothing itself."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str):
        self._names = {n[len(prefix) :]: n for n in state if n.startswith(prefix)}
        self._state = state

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return shape_of(self._state, self._names[name])
