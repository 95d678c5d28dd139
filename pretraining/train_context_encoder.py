"""Train the encoder of the context (stage_lite/context_encoder.py) to know beats and chords.

    python pretraining/train_context_encoder.py --tokens work/tokens --model NANO --out work/encoder

It reads mixes, single stems and clicks of the train split as codes, and says for each frame in
which sixteenth of a beat it stands and which root the chord has. `train_lm.py hear` then lets a
nano listen through it.
Run it again to go on where it was.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from beat_head import UNKNOWN, beat_labels, is_near
from small_training import begin, train
from torch import Tensor

from stage_lite.context_encoder import ContextEncoder, context_steps
from stage_lite.examples import Example
from stage_lite.metrics.same_windows import same_windows
from stage_lite.model import load
from stage_lite.prefix import build_prefix
from stage_lite.shards import ShardDataset
from stage_lite.weights import save_weights

WIDTH = 128
WINDOW_S = 8.0
HEARD = {"mix": 0.36, "backing": 0.34, "stem": 0.2, "click": 0.1}
DROPPED = 0.15  # share of the codes that are hidden
LEARNING_RATE = 2e-3
ROOT_WEIGHT = 0.5
PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11, "b": -1, "#": 1}


class Contexts:
    """Batches of contexts and where the beat is in them; batch i depends on (seed, i) only."""

    def __init__(self, model, examples: ShardDataset, batch_size: int):
        self.model, self.examples, self.batch_size = model, examples, batch_size
        self.chords = chords_of(examples)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        first = step * self.batch_size
        rows = [self.examples[first + i] for i in range(self.batch_size)]
        return lay_out(self.model, rows, self.chords)


def chords_of(data: ShardDataset) -> dict[str, list]:
    """Song -> its chords as [second, name]."""
    songs = (song for shard in data.shards for song in shard.songs.values())
    return {song["id"]: song.get("chords", []) for song in songs}


def lay_out(
    model, examples: list[Example], chords: Mapping[str, list]
) -> tuple[Tensor, Tensor, Tensor]:
    """(sequence [B, K, S], context [B, S], labels [B, 2, S]: part of the beat, root of the chord).

    Args:
        chords: of each song, see `chords_of`; where there are none the roots are unknown.
    """
    n_frames = max(e.context_codes.shape[1] for e in examples)
    nothing = torch.zeros(len(examples), model.n_q, 0, dtype=torch.int64)
    prefix = build_prefix(
        [e.context_codes for e in examples],
        nothing,
        special_token_id=model.special_token_id,
        context_token_id=model.context_token_id,
    )
    context = context_steps(prefix.sequence, model.context_token_id, prefix.attention_mask)
    labels = np.full((len(examples), 2, context.shape[1]), UNKNOWN)
    for row, example in zip(labels, examples, strict=True):
        length = example.context_codes.shape[1]
        begin = 1 + n_frames - length  # step 0 of a row is empty, frame 0 of codebook 0 is next
        row[0, begin : begin + length] = beat_labels(example, length, model.frame_rate)[0]
        unpitched = example.condition == "click" or (example.condition, example.target_name) == (
            "stem",
            "bass",
        )
        if not unpitched:
            seconds = example.start_s + np.arange(length) / model.frame_rate
            row[1, begin : begin + length] = root_labels(chords.get(example.song_id, []), seconds)
    return prefix.sequence, context, torch.from_numpy(labels)


def root_labels(chords: list, seconds: np.ndarray) -> np.ndarray:
    """Pitch class of the chord's root at each second, UNKNOWN before the first chord."""
    roots = [sum(PITCHES[c] for c in re.match("[A-G][b#]*", name)[0]) % 12 for _, name in chords]
    at = np.searchsorted([second for second, _ in chords], seconds, side="right")
    return np.array([UNKNOWN, *roots])[at]


def right(logits: Tensor, labels: Tensor, reach: int) -> Tensor:
    """For each row the share of frames that are right to `reach` classes; NaN where none is known.

    Chance is 3 / 16 for the part of the beat (reach 1), 1 / 12 for the root (reach 0).
    """
    near = is_near(logits, labels, reach)
    known = labels != UNKNOWN
    return (near & known).sum(1) / known.sum(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN
    ).nan_to_num()  # no label is known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=Path, required=True, nargs="+", help="folders of shards")
    parser.add_argument("--model", type=Path, required=True, help="folder of the nano to listen")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this much time")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250, help="and validate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    begin(args)
    model = load(args.model)
    encoder = ContextEncoder(model.n_q, model.card, model.config.lm.dim, WIDTH)
    learned = (encoder.table, encoder.blocks, encoder.phase, encoder.root)
    for way in (encoder.of_phase, encoder.of_root, encoder.of_features):
        way.requires_grad_(False)
    examples = ShardDataset(
        args.tokens, {"drums": 0.6, "bass": 0.4}, window_s=WINDOW_S, conditions=HEARD,
        context_s=(2.0, WINDOW_S), whole_context=0.6, seed=args.seed, split="train", n=10**9,
        verify=False,
    )  # fmt: skip
    held_out = same_windows(args.tokens, "drums", ["mix", "backing"], 96, seed=1, split="valid")
    batches = Contexts(model, examples, args.batch_size)
    chords = batches.chords
    print(f"{sum(p.numel() for m in learned for p in m.parameters()):,} parameters", flush=True)

    def losses_of(rows, generator: torch.Generator) -> dict[str, Tensor]:
        sequence, context, labels = rows
        gone = torch.rand(sequence.shape, generator=generator) < DROPPED
        hidden = sequence.masked_fill(gone & (sequence < model.card), model.special_token_id)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            features = encoder.features(hidden, context)
            phase, root = encoder.phase(features), encoder.root(features)
        return {
            "beat": cross_entropy(phase, labels[:, 0]),
            "root": ROOT_WEIGHT * cross_entropy(root, labels[:, 1]),
            "_beat_right": right(phase.detach(), labels[:, 0], 1).nanmean(),
            "_root_right": right(root.detach(), labels[:, 1], 0).nanmean(),
        }

    def validate() -> dict[str, float]:
        found = {}
        for name, windows in held_out.items():
            beat, root = [], []
            for first in range(0, len(windows), 32):
                rows = lay_out(model, windows[first : first + 32], chords)
                features = encoder.features(*rows[:2])
                beat.append(right(encoder.phase(features), rows[2][:, 0], 1))
                root.append(right(encoder.root(features), rows[2][:, 1], 0))
            found[f"valid_{name}_beat"] = float(torch.cat(beat).nanmean())
            found[f"valid_{name}_root"] = float(torch.cat(root).nanmean())
        return found

    if train(args, encoder, batches, losses_of, validate):
        for parameter in encoder.parameters():
            parameter.requires_grad_(True)
        save_weights(encoder, args.out / "encoder.safetensors")
        print(f"-> {args.out / 'encoder.safetensors'}")


if __name__ == "__main__":
    main()
