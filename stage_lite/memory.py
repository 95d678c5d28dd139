"""How much memory is free, asked before it is needed and not after the machine has died.

In a container its limit counts and not the machine's memory: control groups of both versions, the
process's own group and those above it.

Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from .errors import StageLiteError
from .lm import SHORT_STEPS

SPARE = 300 * 2**20  # bytes for what is not weights
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
# of version 2, then 1: limit, what is used of it, and where version 1 keeps its groups
_FILES = (
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_NO_LIMIT = 2**60  # version 1 says it by a number near 2**63


def available_bytes(device: torch.device | str = "cpu") -> int | None:
    """Bytes that new tensors may take on a device; None where the system does not say.

    Args:
        device: of a CPU, the machine's free memory or what its container may still take, whichever
            is less; of a CUDA device, what is free there and what torch holds unused.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return None
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [n for n in (_meminfo(), *_groups()) if n is not None]
    return min(known) if known else _from_psutil()


def check_memory(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Refuse to load weights that do not fit.

    Args:
        needed: bytes that the weights take once they are loaded.
        what: for the message.
        device: where they go; on a CUDA device its own memory counts too.

    Raises:
        StageLiteError: says what is needed, what is there and what makes it smaller.
    """
    hint = (
        "a smaller model (facebook/musicgen-small), stage_lite.load(..., dtype='bf16') for half of "
        "it ('int8': a quarter, to generate only), or close other programs"
    )
    _check(needed + SPARE, what, "cpu", hint)
    if torch.device(device).type == "cuda":
        _check(needed + SPARE, what, device, hint)


def check_training_memory(needed: int, device: torch.device | str) -> None:
    """Refuse a training step that does not fit; `needed` as `training_bytes` says it.

    Raises:
        StageLiteError: says what is needed, what is there and what makes it smaller.
    """
    hint = (
        "a smaller batch_size or shorter windows, a larger accumulation, "
        "activation_checkpointing=True, lora_rank=8, precision='bf16-mixed', or strategy='fsdp' "
        "over several GPUs"
    )
    _check(needed, "a training step, beside the weights,", device, hint)


def check_cache_memory(needed: int, rows: int, n_steps: int, device: torch.device | str) -> None:
    """Refuse a generation whose keys and values do not fit.

    Raises:
        StageLiteError: says what is needed, what is there and what makes it smaller.
    """
    hint = "fewer rows at once, or a shorter window_s (the time it writes stays as long)"
    _check(needed, f"the cache of {rows} rows of {n_steps} steps", device, hint)


def training_bytes(
    lm: nn.Module,
    rows: int,
    n_steps: int,
    *,
    half: bool = False,
    recompute: bool = False,
    parts: int = 1,
) -> int:
    """A careful estimate from below: gradients, AdamW's two moments, what backward needs.

    Args:
        lm: audiocraft's LMModel; parameters that are frozen need no gradients.
        rows, n_steps: of one forward pass.
        half: activations in bf16 or fp16.
        recompute: activation checkpointing.
        parts: processes that share gradients and moments (fsdp).
    """
    learned = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    attention = lm.transformer.layers[0].self_attn
    heads = getattr(attention, "base_layer", attention).num_heads  # LoRA wraps it
    layers = len(lm.transformer.layers)
    width = 2 if half else 4
    layer = 16 * lm.dim * n_steps * width  # norms, queries to values, both halves of feed-forward
    if n_steps <= SHORT_STEPS and lm.emb[0].weight.device.type == "cpu":
        layer += heads * n_steps**2 * width  # attention written out, see lm.py
    kept = layers * lm.dim * n_steps * 4 + layer if recompute else layers * layer
    logits = 2 * lm.n_q * lm.card * n_steps // 2 * 4  # of the target, about half of the steps
    return 12 * learned // parts + rows * (kept + logits)


# --- helpers -----------------------------------------------------------------------------------


def _check(needed: int, what: str, device: torch.device | str, hint: str) -> None:
    free = available_bytes(device)
    if free is not None and needed > free:
        place = "memory" if torch.device(device).type == "cpu" else f"memory of {device}"
        raise StageLiteError(
            f"{what} needs {_gb(needed)} of {place}, {_gb(free)} are free. Try: {hint}"
        )


def _gb(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _meminfo() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _from_psutil() -> int | None:
    """Where there is no /proc: macOS, Windows."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _groups() -> Iterator[int]:
    """What is left of each limit that holds for this process; cached files count as free."""
    for below, limit, used in _FILES:
        for folder in _own_and_above(GROUPS / below, below):
            try:
                most = (folder / limit).read_text().strip()
                now = (folder / used).read_text().strip()
                lines = (folder / "memory.stat").read_text().splitlines()
                stat = dict(line.split(maxsplit=1) for line in lines)
                cached = [int(stat.get(f"{kind}_file", 0)) for kind in ("inactive", "active")]
            except (OSError, ValueError):  # another version's folder, or none
                continue
            if most.isdigit() and now.isdigit() and int(most) < _NO_LIMIT:
                yield max(0, int(most) - int(now) + sum(cached))


def _own_and_above(root: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's control group, and those of the groups that hold it.

    A line of /proc/self/cgroup is `number:controllers:/path`, in version 2 `0::/path`. In a
    container the path may be the host's, of which nothing is seen here: then the root counts.
    """
    own = "/"
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) == 3 and controller in parts[1].split(","):
            own = parts[2]
    inner = Path(own.strip("/"))
    if ".." in inner.parts:  # the group stands outside of what is seen here
        inner = Path()
    yield root / inner
    for above in inner.parents:
        yield root / above
