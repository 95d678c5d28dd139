"""Results on disk under the hash of what they were made from: a report that stops can go on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from stage_lite.files import write_atomic

Job = TypeVar("Job")


def key_of(*parts: Any) -> str:
    """Hash of tensors (by content) and of anything that JSON can write."""
    content = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            content.update(f"{part.dtype}{tuple(part.shape)}".encode())
            content.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            content.update(json.dumps(part, sort_keys=True).encode())
        content.update(b"\0")
    return content.hexdigest()[:32]


def fingerprint(module: torch.nn.Module) -> str:
    """Hash of a module's weights and of their names."""
    return key_of(
        *(p for name, value in sorted(module.state_dict().items()) for p in (name, value))
    )


class ResultStore:
    """A folder with one small JSON file per result; safe to delete at any time."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._file(key).read_text())

    def __contains__(self, key: str) -> bool:
        return self._file(key).is_file()

    def fill(
        self,
        what: str,
        jobs: Mapping[str, Job],
        compute: Callable[[Sequence[Job]], Sequence[Any]],
        batch_size: int,
    ) -> None:
        """Compute what is missing, batch after batch, and print how far it is.

        Args:
            what: name to print.
            jobs: key -> what `compute` takes.
            compute: jobs -> as many results.
            batch_size: jobs per call; each batch is stored before the next one starts.
        """
        missing = [key for key in jobs if key not in self]
        print(f"{what}: {len(jobs) - len(missing)} of {len(jobs)} are there", flush=True)
        began = time.monotonic()
        for start in range(0, len(missing), batch_size):
            keys = missing[start : start + batch_size]
            for key, value in zip(keys, compute([jobs[k] for k in keys]), strict=True):
                write_atomic(self._file(key), json.dumps(value))
            done = start + len(keys)
            seconds = (time.monotonic() - began) / done
            left = (len(missing) - done) * seconds / 60
            print(f"{what}: {done} of {len(missing)}, {seconds:.2f} s each, {left:.1f} min left",
                  flush=True)  # fmt: skip

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"
