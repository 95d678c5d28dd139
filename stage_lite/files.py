"""Files that appear whole or not at all, and files that are what they were: writes and sha256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import StageLiteError

REGISTRY = "registry.txt"


@contextmanager
def atomic(file: str | Path) -> Iterator[Path]:
    """A temporary path beside `file`, moved onto it at the end; after an error nothing is left.

    with atomic("out/drums.wav") as temporary:
        soundfile.write(temporary, ...)
    """
    file = Path(file)
    # The suffix stays last: writers choose the format by it.
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.part{file.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors writes files that nobody else may read
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(file: str | Path, content: bytes | str) -> None:
    """Write a whole file, or nothing of it."""
    with atomic(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(file: str | Path) -> str:
    """Hex digest of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_registry(folder: str | Path, pattern: str = "*") -> Path:
    """Write `registry.txt`: a line `<sha256>  <path in the folder>` per file, as sha256sum does.

    Args:
        folder: searched with its subfolders; hidden files and the registry itself are left out.
        pattern: of the file names, for instance "*.safetensors".
    """
    folder = Path(folder)
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob(pattern)
        if file.is_file() and not file.name.startswith(".") and file != folder / REGISTRY
    )
    write_atomic(folder / REGISTRY, "".join(f"{sha256_of(folder / n)}  {n}\n" for n in names))
    return folder / REGISTRY


def read_registry(folder: str | Path) -> dict[str, str]:
    """Path in the folder -> sha256, as `registry.txt` says."""
    registry = Path(folder) / REGISTRY
    if not registry.is_file():
        raise StageLiteError(
            f"{registry} is missing; expected a line '<sha256>  <file>' per file; "
            "restore it (git checkout), or write it with stage_lite.files.write_registry"
        )
    known = {}
    for line in registry.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            digest, _, name = line.strip().partition(" ")
            known[name.strip().removeprefix("*")] = digest
    return known


def verify_registry(folder: str | Path, names: Sequence[str] | None = None) -> None:
    """Compare files with the sha256 in `registry.txt`.

    Args:
        folder: holds registry.txt.
        names: paths in the folder to check; None checks every line. A name without a line is an
            error.

    Raises:
        StageLiteError: names the first file that is missing, unknown or different.
    """
    folder = Path(folder)
    known = read_registry(folder)
    for name in known if names is None else names:
        file = folder / name
        if name not in known:
            raise StageLiteError(f"{file} has no line in {folder / REGISTRY}; expected its sha256")
        if not file.is_file():
            raise StageLiteError(
                f"{file} is missing, yet {REGISTRY} lists it; restore it (git checkout)"
            )
        found = sha256_of(file)
        if found != known[name]:
            raise StageLiteError(
                f"{file} is broken: its sha256 is {found[:12]}..., expected {known[name][:12]}...; "
                "restore it (git checkout) or download it again"
            )
