"""What bf16 and int8 cost in quality: loss of real stems, and beat F1 of drums made to a click.

    python -m benchmarks precision --n 48

The same windows, seeds and sampling for each kind of weights, so the differences to fp32 are paired
per window; their 95 % intervals are over songs (`metrics.bootstrap`). The loss is that of the
decoder which generates, step by step with the stem's own codes, not of the training pass.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import stage_lite as sl
from stage_lite.decoder import Decoder
from stage_lite.metrics.beats import beat_f1
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.text import encode_text

KINDS = ("fp32", "bf16", "int8")
TOKENS = Path(__file__).parents[1] / "data_samples" / "tokens"


def windows(n: int, window_s: float = 8.0, folder: Path = TOKENS, seed: int = 0) -> list:
    """Drums of the shipped songs, each with its click as the context."""
    data = sl.ShardDataset(folder, "drums", window_s=window_s, conditions=["click"], seed=seed, n=n)
    return [data[i] for i in range(n)]


def measure(model, n: int = 48, examples: list | None = None):
    """A pandas table: per kind of weights the loss, the beat F1 and what they lost to fp32."""
    import pandas as pd

    examples = windows(n, model.config.trained_s) if examples is None else examples
    losses = {k: [decoder_loss(model, e, k) for e in examples] for k in KINDS}
    scores = {k: [_beat_f1(model, e, k, i) for i, e in enumerate(examples)] for k in KINDS}
    songs = Bootstrap([e.song_id for e in examples])
    lines = []
    for kind in KINDS:
        line: dict[str, object] = {
            "weights": kind,
            "windows": len(examples),
            "songs": songs.n_songs,
        }
        for name, values in (("loss", losses), ("beat F1", scores)):
            line[name] = round(float(np.nanmean(values[kind])), 4)
            change = songs.mean(np.array(values[kind]) - np.array(values["fp32"]))
            line[f"{name} - fp32"] = shown(change)
        lines.append(line)
    return pd.DataFrame(lines)


def shown(estimate: dict[str, float]) -> str:
    """Mean and interval with four digits."""
    mean, low, high = (float(x) for x in list(estimate.values())[:3])
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


@torch.inference_mode()
def decoder_loss(model, example, weights: str) -> float:
    """Nats per code of a target, written by the generation's own steps."""
    prefix = sl.build_prefix(
        [example.context_codes],
        example.target_codes[None],
        special_token_id=model.special_token_id,
        context_token_id=model.context_token_id,
        anchor_frames=model.config.anchor_frames,
    )
    text, mask = encode_text(model.lm, [example.description])
    words = None if text is None else (text * mask.unsqueeze(-1))[0]
    decoder, sequence = Decoder(model.lm, prefix, [words], weights), prefix.sequence
    logits = [decoder.prefill(sequence[:, :, : prefix.target_start])]
    for at in range(prefix.target_start, sequence.shape[2]):
        logits.append(decoder.step(sequence[:, :, at]))
    loss, _ = sl.prefix_loss(torch.stack(logits, dim=2), prefix)
    return float(loss)


def _beat_f1(model, example, weights: str, seed: int) -> float:
    out = sl.generate_codes(
        model.lm,
        [example.context_codes],
        [example.description],
        example.target_codes.shape[1],
        seed=seed,
        weights=weights,
        anchor_frames=model.config.anchor_frames,
    )
    if not len(example.beat_times):
        return float("nan")
    return beat_f1(example.beat_times, model.decode(out.codes)[0], model.sample_rate)
