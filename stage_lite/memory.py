"""What a training step needs beside the weights, so that it is said before the machine says it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .errors import StageLiteError
from .lm import SHORT_STEPS

GB = 2**30


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


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free for us; None where it cannot be known."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    file = Path("/proc/meminfo")
    if device.type != "cpu" or not file.is_file():
        return None
    lines = (line.split(":") for line in file.read_text().splitlines())
    return int(dict(lines)["MemAvailable"].split()[0]) * 1024


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse what cannot fit.

    Raises:
        StageLiteError: says what is needed, what is there and what makes it smaller.
    """
    free = available_bytes(device)
    if free is not None and needed > free:
        raise StageLiteError(
            f"a training step needs at least {needed / GB:.1f} GB beside the weights, {device} has "
            f"{free / GB:.1f} GB left; try a smaller batch_size or shorter windows, a larger "
            "accumulation, activation_checkpointing=True, lora_rank=8, precision='bf16-mixed', or "
            "strategy='fsdp' over several GPUs"
        )
