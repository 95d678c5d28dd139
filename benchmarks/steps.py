"""One step of generation at MusicGen-small's size, in CPU time of one thread.

    python -m benchmarks steps

For a machine that has other work to do, where the clock on the wall tells nothing: a step's own CPU
time is not lengthened by waiting, only by what the others drive out of the caches. Ways take turns,
and the least of each counts. What two cores make of it only `musicgen_small` can tell.

The step is in the middle of 10 s behind 10 s of context, with guidance; sampling is counted in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

import stage_lite as sl
from benchmarks.musicgen_small import CFG, TOP_K, WORDS, Sizes
from benchmarks.side_by_side import Row
from stage_lite.decoder import Decoder
from stage_lite.sampling import Sampler
from stage_lite.sizing import outline
from stage_lite.text import encode_text

MUSICGEN_SMALL = Sizes()
KINDS = (("fp32", "exact"), ("bf16", "exact"), ("bf16", None), ("int8", "exact"), ("int8", None))


def measure(sizes: Sizes = MUSICGEN_SMALL, rounds: int = 3, steps: int = 6) -> list[Row]:
    """Steps per second of CPU time, ours beside audiocraft's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lm = _random_lm(sizes)
        ways = {"audiocraft": _audiocraft(lm, sizes, steps)}
        for weights, cache in KINDS:
            name = weights if cache is None or weights == "fp32" else f"{weights}, {cache} cache"
            ways[name] = _ours(lm, sizes, steps, weights, cache)
        least = {name: float("inf") for name in ways}
        for number in range(rounds):
            for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
                least[name] = min(least[name], *ways[name]())
    finally:
        torch.set_num_threads(threads)
    peer = 1 / least.pop("audiocraft")
    where = f"step {sizes.frames // 2} after {sizes.context_frames}"
    return [
        Row(f"{where}, {name}", 1 / seconds, "steps per CPU second", peer)
        for name, seconds in least.items()
    ]


@torch.no_grad()
def _random_lm(sizes: Sizes) -> torch.nn.Module:
    config = sl.LMConfig(
        card=sizes.card, dim=sizes.dim, num_layers=sizes.num_layers, num_heads=sizes.num_heads,
        vocabulary=WORDS, word_dim=sizes.text_dim, context_token=True,
    )  # fmt: skip
    lm = outline(config).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in lm.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return lm


def _ours(
    lm: torch.nn.Module, sizes: Sizes, steps: int, weights: str, cache: str | None
) -> Callable[[], list[float]]:
    n = sizes.frames
    target = torch.zeros(2, 4, n, dtype=torch.long)
    context = torch.zeros(4, sizes.context_frames, dtype=torch.long)
    prefix = sl.build_prefix(
        [context, None], target, special_token_id=sizes.card, context_token_id=sizes.card + 1
    )
    text, _ = encode_text(lm, [" ".join(WORDS)])
    decoder = Decoder(lm, prefix, [text[0], None], weights, cache=cache)
    decoder.prefill(prefix.sequence[:, :, : prefix.target_start + n // 2])
    at = decoder.length
    sampler = Sampler(1.0, min(TOP_K, sizes.card), 0.0, [torch.Generator().manual_seed(0)])

    @torch.inference_mode()
    def run() -> list[float]:
        taken, codes = [], torch.zeros(2, 4, dtype=torch.long)
        decoder.length = at
        for _ in range(steps):
            started = time.thread_time()
            conditional, unconditional = decoder.step(codes).split(1)
            codes = sampler(torch.lerp(unconditional, conditional, CFG))[..., 0].expand(2, -1)
            taken.append(time.thread_time() - started)
        return taken

    return run


def _audiocraft(lm: torch.nn.Module, sizes: Sizes, steps: int) -> Callable[[], list[float]]:
    """A prompt as long as context and half of the target; the pass over it is not counted."""
    from stage_lite.upstream import audiocraft_classes

    attributes = audiocraft_classes().ConditioningAttributes(text={"description": " ".join(WORDS)})
    n = sizes.context_frames + sizes.frames // 2
    prompt = torch.zeros(1, 4, n, dtype=torch.long)

    def run() -> list[float]:
        times: list[float] = []
        lm.generate(
            prompt, [attributes], max_gen_len=n + steps, use_sampling=True, temp=1.0,
            top_k=min(TOP_K, sizes.card), cfg_coef=CFG,
            callback=lambda *_: times.append(time.thread_time()),
        )  # fmt: skip
        return [b - a for a, b in pairwise(times)]

    return run
