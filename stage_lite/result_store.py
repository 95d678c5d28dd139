"""Results under the hash of what they were made from: work that stops can go on.

On disk, or for the time of one run in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from .errors import StageLiteError
from .files import write_atomic

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


def without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, all the way down: JSON knows neither."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ResultStore:
    """Key -> anything that JSON can write.

    Args:
        folder: one small JSON file per result, safe to delete at any time; made if missing. None
            keeps the results in memory.
        progress: how `fill` tells how far it is: "lines" (for logs), "bar" or "none".

    Raises:
        StageLiteError: the folder is a file.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        progress: Literal["lines", "bar", "none"] = "lines",
    ):
        self.folder = None if folder is None else Path(folder)
        self.progress = progress
        self._memory: dict[str, str] = {}
        if self.folder is not None:
            if self.folder.exists() and not self.folder.is_dir():
                raise StageLiteError(f"{self.folder} is a file; expected a folder to keep results")
            self.folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._memory[key] if self.folder is None else self._file(key).read_text())

    def __setitem__(self, key: str, value: Any) -> None:
        content = json.dumps(value)
        if self.folder is None:
            self._memory[key] = content
        else:
            write_atomic(self._file(key), content)

    def __contains__(self, key: str) -> bool:
        return key in self._memory if self.folder is None else self._file(key).is_file()

    def fill(
        self,
        what: str,
        jobs: Mapping[str, Job],
        compute: Callable[[Sequence[Job]], Sequence[Any]],
        batch_size: int,
    ) -> None:
        """Compute what is missing, batch after batch, and tell how far it is.

        Args:
            what: name to print.
            jobs: key -> what `compute` takes.
            compute: jobs -> as many results.
            batch_size: jobs per call; each batch is stored before the next one starts.
        """
        missing = [key for key in jobs if key not in self]
        tell, close = self._teller(what, len(jobs), len(missing))
        try:
            for start in range(0, len(missing), batch_size):
                keys = missing[start : start + batch_size]
                for key, value in zip(keys, compute([jobs[k] for k in keys]), strict=True):
                    self[key] = value
                tell(start + len(keys))
        finally:
            close()

    def _teller(
        self, what: str, total: int, missing: int
    ) -> tuple[Callable[[int], None], Callable[[], None]]:
        if self.progress == "none":
            return lambda done: None, lambda: None
        if self.progress == "bar":
            from tqdm.auto import tqdm

            bar = tqdm(total=total, initial=total - missing, desc=what)
            return lambda done: bar.update(total - missing + done - bar.n), bar.close
        print(f"{what}: {total - missing} of {total} are there", flush=True)
        began = time.monotonic()

        def line(done: int) -> None:
            seconds = (time.monotonic() - began) / done
            left = (missing - done) * seconds / 60
            print(f"{what}: {done} of {missing}, {seconds:.2f} s each, {left:.1f} min left",
                  flush=True)  # fmt: skip

        return line, lambda: None

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"
