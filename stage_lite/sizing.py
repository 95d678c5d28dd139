"""What a model needs of a machine, worked out on paper: parameters, bytes, bandwidth. No clock.

    lm = outline(MUSICGEN["facebook/musicgen-small"])    # laid out without memory
    generation_on_paper(lm, MACHINES["T4"], "fp16")      # bytes needed, steps a second at most

A step of generation reads every matrix once, whatever it writes, so memory bandwidth bounds it from
above; no program reaches the bound, and `benchmarks/` says how far from it this one stays. Training
is bounded by arithmetic, of which programs reach a part: `share` says which, and is a guess.

Sources: sizes of MusicGen: audiocraft, config/model/lm/model_scale. T4 and A100: NVIDIA's data
sheets. Bound by bandwidth: Williams et al. 2009, Roofline.   Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .lm_config import LMConfig
from .matrices import DTYPES
from .memory import training_bytes
from .step_cache import ByteCache

_BIG = {"card": 2048, "t5": "t5-base"}
MUSICGEN = {
    "facebook/musicgen-small": LMConfig(dim=1024, num_layers=24, num_heads=16, **_BIG),
    "facebook/musicgen-medium": LMConfig(dim=1536, num_layers=48, num_heads=24, **_BIG),
    "facebook/musicgen-large": LMConfig(dim=2048, num_layers=48, num_heads=32, **_BIG),
    "stage-drums": LMConfig(dim=1024, num_layers=24, num_heads=16, context_token=True, **_BIG),
}
FRAME_RATE, N_Q = 50, 4  # of the codec, for all of them
T5_BASE = 32128 * 768 + 12 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 768) + 768 + 32 * 12  # encoder
CODEC = 59e6  # parameters of EnCodec 32 kHz: a file of 236 MB in fp32
PROGRAM = 0.5e9  # bytes of Python, torch and what they import


@dataclass(frozen=True)
class Machine:
    """What a data sheet says."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes a second between memory and arithmetic
    flops: float  # operations a second in `half`
    half: str  # what it computes fast in


MACHINES = {
    "T4": Machine("T4", 16e9, 320e9, 65e12, "fp16"),  # Turing: bf16 is not in hardware
    "A100": Machine("A100", 40e9, 1555e9, 312e12, "bf16"),  # 40 GB
    # A laptop: two channels of DDR4-3200, 8 bytes each; eight cores at 3 GHz, two units of eight
    # fp32 numbers each, a product and a sum at once.
    "CPU": Machine("CPU", 16e9, 2 * 8 * 3.2e9, 8 * 3e9 * 2 * 8 * 2, "bf16"),
}


@dataclass(frozen=True)
class Paper:
    """A bound that was worked out, not measured."""

    needed: float  # bytes of memory, at least
    fits: bool
    steps_per_s: float  # of generation, or of the optimizer; at most
    seconds: float  # of the whole, at least


def outline(config: LMConfig) -> nn.Module:
    """An LMModel of these sizes without any memory: parameters have shapes and no numbers."""
    from .interop.build import empty_lm
    from .interop.t5 import make_reader

    if config.t5 is None:
        return empty_lm(config)
    with torch.device("meta"):
        reader = make_reader(config.t5, config.dim, dim=768)
    return empty_lm(config, reader)


def parameters(lm: nn.Module) -> dict[str, int]:
    """How many numbers each kind of part holds, largest first."""
    found: dict[str, int] = {}
    for name, weight in lm.named_parameters():
        kind = next(kind for mark, kind in _KINDS if mark in name)
        found[kind] = found.get(kind, 0) + weight.numel()
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def weight_bytes(lm: nn.Module, weights: str) -> int:
    """Bytes of an LM as generation holds it.

    Matrices of layers and heads in the type of `weights`, for "int8" with a scale per row;
    embeddings, norms and text in fp32.
    """
    return sum(
        _bytes(p.shape, weights) if _is_matrix(name, p) else 4 * p.numel()
        for name, p in lm.named_parameters()
    )


def step_bytes(lm: nn.Module, weights: str) -> int:
    """Bytes that one step of generation reads of the weights.

    Keys and values of the text are computed before the first step, so two thirds of the cross-
    attention's first matrix are not read again; of the tables, a row each, which is left out.
    """
    total = 0
    for name, p in lm.named_parameters():
        if _is_matrix(name, p):
            read = _bytes(p.shape, weights)
            total += read // 3 if name.endswith("cross_attention.in_proj_weight") else read
    return total


def kv_bytes(lm: nn.Module, rows: int, n_steps: int, bytes_per_number: int) -> int:
    """Keys and values of all layers, rows and steps."""
    return 2 * len(lm.transformer.layers) * rows * n_steps * lm.dim * bytes_per_number


def held_cache_bytes(lm: nn.Module, machine: Machine, weights: str, n_steps: int) -> int:
    """Keys and values of one row as a decoder holds them: see `step_cache`."""
    if machine.name != "CPU":
        return kv_bytes(lm, 1, n_steps, DTYPES.get(weights, torch.float32).itemsize)
    if weights not in ("bf16", "int8"):
        return kv_bytes(lm, 1, n_steps, 4)
    heads = lm.transformer.layers[0].self_attn.num_heads
    return ByteCache.bytes_of(len(lm.transformer.layers), 1, heads, n_steps, lm.dim // heads)


def generation_on_paper(
    lm: nn.Module,
    machine: Machine,
    weights: str,
    *,
    context_s: float = 10.0,
    duration_s: float = 10.0,
) -> Paper:
    """One row with guidance (two rows of the model), after a context of `context_s`.

    Args:
        lm: of `outline`.
        weights: "fp32", "fp16", "bf16", "int8".

    Returns:
        Memory: weights, cache, codec, T5 and the program; steps a second and seconds in all, the
        pass over the prefix included.
    """
    rows, written = 2, round(duration_s * FRAME_RATE) + N_Q - 1
    known = round(context_s * FRAME_RATE) + 2
    # the unconditional row has no context; on average a step reads half of what will be written
    cache = held_cache_bytes(lm, machine, weights, known + rows * written)
    half_full = held_cache_bytes(lm, machine, weights, known + rows * written // 2)
    read, numbers = step_bytes(lm, weights), step_bytes(lm, "fp32") / 4
    needed = weight_bytes(lm, weights) + cache + 4 * (CODEC + T5_BASE) + PROGRAM
    step = max((read + half_full) / machine.bandwidth, 2 * rows * numbers / machine.flops)
    prefill = max(read / machine.bandwidth, 2 * known * numbers / machine.flops)
    return Paper(needed, needed <= machine.memory, 1 / step, prefill + written * step)


def training_on_paper(
    lm: nn.Module,
    machine: Machine,
    *,
    rows: int,
    accumulation: int,
    steps: int,
    window_s: float = 10.0,
    recompute: bool = False,
    share: float = 0.3,
) -> Paper:
    """A fine-tune of all weights in mixed precision with AdamW.

    Args:
        lm: of `outline`.
        rows: windows of one forward pass; `accumulation` of them make an optimizer step.
        window_s: of context, and of target.
        recompute: activation checkpointing: a third more arithmetic.
        share: of the data sheet's arithmetic that a program reaches. A guess.

    Returns:
        Memory: weights, gradients and moments in fp32, activations in half precision, codec, T5 and
        the program; optimizer steps a second and seconds of all `steps`.
    """
    n_steps = 2 * round(window_s * FRAME_RATE) + 1 + N_Q
    count = sum(p.numel() for p in lm.parameters())
    needed = 4 * count + training_bytes(lm, rows, n_steps, half=True, recompute=recompute)
    needed += 4 * (CODEC + T5_BASE) + PROGRAM
    work = (8 if recompute else 6) * count * rows * accumulation * n_steps
    step = work / (share * machine.flops)
    return Paper(needed, needed <= machine.memory, 1 / step, steps * step)


def shape_table(shapes: Mapping[str, LMConfig]) -> Any:
    """Sizes of several models as a pandas table, one column per model."""
    import pandas as pd

    return pd.DataFrame({
        name: {
            "codebooks K": c.n_q, "card": c.card, "dim": c.dim, "layers": c.num_layers,
            "heads": c.num_heads, "width of a head": c.dim // c.num_heads,
            "words read by": c.t5 or f"a table of {len(c.vocabulary)}",
            "context token": c.context_token,
            "parameters (M)": round(sum(parameters(outline(c)).values()) / 1e6, 1),
        }
        for name, c in shapes.items()
    })  # fmt: skip


def generation_table(
    outlines: Mapping[str, nn.Module], kinds: Mapping[str, Sequence[str]], **settings: float
) -> Any:
    """`generation_on_paper` of several models as a pandas table.

    Args:
        outlines: name -> `outline`.
        kinds: name of a machine in MACHINES -> kinds of weights to try there.
        settings: for `generation_on_paper`.
    """
    import pandas as pd

    lines = []
    for machine, weights in kinds.items():
        for name, lm in outlines.items():
            for kind in weights:
                p = generation_on_paper(lm, MACHINES[machine], kind, **settings)
                lines.append({"model": name, "machine": machine, "weights": kind,
                              "GB needed": round(p.needed / 1e9, 1), "fits": p.fits,
                              "steps/s at most": round(p.steps_per_s, 1),
                              "seconds at least": round(p.seconds, 1)})  # fmt: skip
    return pd.DataFrame(lines).set_index(["model", "machine", "weights"])


def training_table(outlines: Mapping[str, nn.Module], machines: Sequence[str], **settings) -> Any:
    """`training_on_paper` of several models, with and without activation checkpointing."""
    import pandas as pd

    lines = []
    for machine in machines:
        for name, lm in outlines.items():
            for recompute in (False, True):
                p = training_on_paper(lm, MACHINES[machine], recompute=recompute, **settings)
                lines.append({"model": name, "machine": machine, "checkpointing": recompute,
                              "GB needed": round(p.needed / 1e9, 1), "fits": p.fits,
                              "hours at least": round(p.seconds / 3600, 1),
                              "steps in 24 h": int(24 * 3600 * p.steps_per_s)})  # fmt: skip
    return pd.DataFrame(lines).set_index(["model", "machine", "checkpointing"])


# --- helpers -----------------------------------------------------------------------------------

_KINDS = (  # a mark in the name -> what it is; the first that fits
    ("context_encoder", "context encoder"),
    ("condition_provider", "text"),
    ("self_attn", "self-attention"),
    ("cross_attention", "cross-attention"),
    ("norm", "norms"),
    (".linear1.", "feed-forward"),
    (".linear2.", "feed-forward"),
    ("linears.", "heads"),
    ("emb.", "embeddings"),
)


def _is_matrix(name: str, weight: torch.Tensor) -> bool:
    return weight.dim() == 2 and name.startswith(("transformer.", "linears."))


def _bytes(shape: torch.Size, weights: str) -> int:
    if weights == "int8":
        return math.prod(shape) + 4 * shape[0]
    return math.prod(shape) * DTYPES[weights].itemsize
