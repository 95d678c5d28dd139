"""How much memory is free, asked before a model is loaded and not after the machine has died."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import StageLiteError

SPARE = 300 * 2**20  # bytes for what is not weights


def available_bytes() -> int | None:
    """Bytes that new tensors may take: the machine's free memory or the container's limit; None
    where the system does not say."""
    found = [_meminfo(), _control_group()]
    if found[0] is None:
        try:
            import psutil
        except ImportError:
            pass
        else:
            found.append(psutil.virtual_memory().available)
    known = [n for n in found if n is not None]
    return min(known) if known else None


def check_memory(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Raise a StageLiteError if `needed` bytes of weights do not fit.

    Args:
        needed: bytes that the weights take once they are loaded.
        what: for the message.
        device: where they go; on a CUDA device its own memory counts too.
    """
    places = [("memory", available_bytes())]
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        places.append((f"memory of {device}", torch.cuda.mem_get_info(device)[0]))
    for place, free in places:
        if free is not None and needed + SPARE > free:
            raise StageLiteError(
                f"{what} needs {_gb(needed + SPARE)} of {place}, {_gb(free)} are free. Try: a "
                "smaller model (facebook/musicgen-small), stage_lite.load(..., dtype='bf16') for "
                "half of it ('int8': a quarter, to generate only), or close other programs"
            )


def _gb(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group() -> int | None:
    """What a container may still take (control groups 2, then 1); cached files count as free."""
    root = Path("/sys/fs/cgroup")
    for folder, limit, used in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most, now = (folder / limit).read_text().strip(), (folder / used).read_text().strip()
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and now.isdigit() and int(most) < 2**60:
            cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
            return max(0, int(most) - int(now) + cached)
    return None
