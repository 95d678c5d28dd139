"""Generation against `LMModel.generate` of audiocraft: the same weights, guidance and sampling."""

from __future__ import annotations

import torch

import stage_lite as sl
from benchmarks.side_by_side import Row, seconds_each
from stage_lite.upstream import audiocraft_classes

WORDS = "drums, rock"
TOP_K = 250


def audiocraft_codes(lm, n_frames: int, prompt=None, greedy: bool = False):
    """Codes [1, K, n_frames] by audiocraft's own loop, the prompt first."""
    attributes = audiocraft_classes().ConditioningAttributes(text={"description": WORDS})
    return lm.generate(
        prompt,
        [attributes],
        max_gen_len=n_frames,
        use_sampling=not greedy,
        temp=1.0,
        top_k=min(TOP_K, lm.card),
        cfg_coef=3.0,
    )


def compare(model: sl.StageModel, seconds: float = 8.0, rounds: int = 3) -> list[Row]:
    """Frames per second, guidance on, batch 1.

    With something before the target ours has a context and its token, audiocraft, which knows no
    context, a prompt of the same length: both then work on a sequence of the same length.
    """
    n_frames = round(seconds * model.frame_rate)
    generator = torch.Generator().manual_seed(0)
    before = torch.randint(0, model.card, (1, model.n_q, n_frames), generator=generator)
    anchor = model.config.anchor_frames

    def ours(context):
        return lambda: sl.generate_codes(
            model.lm, context, [WORDS], n_frames, top_k=TOP_K, seed=0, anchor_frames=anchor
        )

    plain = seconds_each(
        {"ours": ours(None), "peer": lambda: audiocraft_codes(model.lm, n_frames)}, rounds
    )
    after = seconds_each(
        {
            "ours": ours(before),
            "peer": lambda: audiocraft_codes(model.lm, 2 * n_frames, prompt=before),
        },
        rounds,
    )
    real_time = model.frame_rate
    bar = f"at least {2 * real_time:g} frames/s, ratio at least 3"
    return [
        Row(f"generation from words, {seconds:g} s", n_frames / plain["ours"], "frames/s",
            n_frames / plain["peer"], bar),
        Row(f"generation, {seconds:g} s after {seconds:g} s of context", n_frames / after["ours"],
            "frames/s", n_frames / after["peer"], bar),
    ]  # fmt: skip


def same_codes(model: sl.StageModel, n_frames: int = 100) -> float:
    """Share of equal greedy codes of both loops: they do the same work. Rounding can part them."""
    ours = sl.generate_codes(model.lm, None, [WORDS], n_frames, temperature=0.0, cfg_coef=3.0)
    return float((ours.codes == audiocraft_codes(model.lm, n_frames, greedy=True)).float().mean())
