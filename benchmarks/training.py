"""One fine-tuning step against `LMModel.compute_predictions` + backward of audiocraft.

The same weights and the same codes: a context and a target behind one another. The optimiser is
left out, for it is the same. Two things differ by design: ours computes the logits of the target
only, for only they carry loss, and it adds the one step of the context token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import stage_lite as sl
from benchmarks.side_by_side import Row, seconds_each
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

WORDS = "drums, rock"


def compare(
    model: sl.StageModel, seconds: float = 8.0, batch_size: int = 4, rounds: int = 3
) -> list[Row]:
    """Steps of context and target per second (a step holds K tokens), in fp32 and in bfloat16."""
    n_frames = round(seconds * model.frame_rate)
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, model.n_q, n_frames)
    context, target = (torch.randint(0, model.card, shape, generator=generator) for _ in range(2))
    attributes = audiocraft_classes().ConditioningAttributes(text={"description": WORDS})
    lm = model.lm

    def ours():
        prefix = sl.build_prefix(
            context,
            target,
            special_token_id=model.special_token_id,
            context_token_id=model.context_token_id,
            anchor_frames=model.config.anchor_frames,
        )
        text, text_mask = encode_text(lm, [WORDS] * batch_size)
        logits = sl.forward(
            lm, prefix.sequence, prefix.attention_mask, prefix.positions, text, text_mask,
            first_step=prefix.target_start - 1,
        )  # fmt: skip
        loss, _ = sl.prefix_loss(logits, prefix)
        loss.backward()
        lm.zero_grad()

    def theirs():
        codes = torch.cat([context, target], dim=-1)
        out = lm.compute_predictions(codes, [attributes] * batch_size)
        loss = torch.zeros(())
        for k in range(model.n_q):  # as audiocraft's solver: the valid codes of each codebook
            valid = out.mask[:, k] & (torch.arange(2 * n_frames) >= n_frames)
            loss = loss + F.cross_entropy(out.logits[:, k][valid].float(), codes[:, k][valid])
        (loss / model.n_q).backward()
        lm.zero_grad()

    def in_bfloat16(step):
        def run():
            with torch.autocast("cpu", torch.bfloat16):
                step()

        return run

    lm.train()
    try:
        taken = seconds_each(
            {"ours": ours, "peer": theirs,
             "ours bf16": in_bfloat16(ours), "peer bf16": in_bfloat16(theirs)},
            rounds,
        )  # fmt: skip
    finally:
        lm.eval()
    steps = batch_size * 2 * n_frames
    what = f"fine-tuning, {batch_size} windows of {seconds:g} s + {seconds:g} s"
    return [
        Row(f"{what}, fp32", steps / taken["ours"], "steps/s", steps / taken["peer"],
            "ratio at least 1"),
        Row(f"{what}, bf16", steps / taken["ours bf16"], "steps/s", steps / taken["peer bf16"],
            "ratio at least 1"),
    ]  # fmt: skip
