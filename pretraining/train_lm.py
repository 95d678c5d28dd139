"""Train nano-base (text to one stem or a mix) and, from it, nano (STAGE: context, token, target).

    python pretraining/train_lm.py base --tokens work/tokens --codec CODEC --out work/base
    python pretraining/train_lm.py click --tokens work/tokens --start work/base/model --out work/1
    python pretraining/train_lm.py nano --tokens work/tokens --start work/1/model --out work/2
    python pretraining/train_lm.py follow --tokens work/tokens --start work/2/model --out work/nano
    python pretraining/train_lm.py hear --tokens work/tokens --start work/nano/model \
        --encoder work/encoder/encoder.safetensors --out work/3
    python pretraining/train_lm.py stage --tokens work/tokens --start work/base/model --out work/4

`click` adds the token and ends with a model that keeps time with a click, `nano` goes on to mixes,
`follow` asks for the beat openly. From there `hear` puts the encoder of the context in front
(train_context_encoder.py). `stage` is STAGE to the letter, from nano-base: its positions, no
encoder, no question for the beat.
Each is a list of stages, short windows first; a stage is a data set and the step at which it ends.
The optimizer goes on from stage to stage. Run it again to go on where it was. `--scale 0.01` runs
everything in a hundredth of the steps, to try the machinery.
"""

import argparse
import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from attach_encoder import attach_encoder
from beat_head import BeatHead
from vocabulary import add_words, words_of

from stage_lite.codec import load_codec
from stage_lite.examples import Example
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.model import ModelConfig, StageModel, load
from stage_lite.prefix import ALIGNED
from stage_lite.shards import ShardDataset
from stage_lite.training import finetune

TARGETS = {"drums": 0.4, "bass": 0.3, "keys": 0.18, "guitar": 0.12}
MIXES = {f"mix:{target}": 0.05 for target in TARGETS}  # for nano-base, described as "mix, ..."
BEAT_WEIGHT = 0.5  # of beat_head.BeatHead beside the loss of the codes
TEXTS = ["description", "description_long"]
SHIPPED_S = 8.0  # seconds of context, and of target, that the shipped models know
POSITIONS = {"stage": None, "anchored": 400, "aligned": ALIGNED}  # see prefix.build_prefix


@dataclasses.dataclass(frozen=True)
class Stage:
    """Up to which step, on which windows."""

    until: int
    window_s: float
    batch_size: int
    conditions: dict[str, float]
    settings: dict = dataclasses.field(default_factory=dict)
    context_s: tuple[float, float] | None = None  # shortest and longest of half of the contexts
    clicks: float = 0.0  # share of windows whose target is the click of a mix or stem


NONE = {"none": 1.0}
DRUMS = [("drums", "click"), ("drums", "mix"), ("drums", "backing"), ("click", "backing:drums")]
HEARD = {  # (target, context) whose listening is watched
    "base": [],
    "click": [("drums", "click"), ("drums", "mix")],
    "nano": DRUMS,
    "follow": DRUMS,
    "hear": DRUMS,
    "stage": [("drums", "self"), *DRUMS[:3]],
}
LATE = {"history_dropout": 0.6, "history_delay": 0.4}
PAST = {  # share of windows with some of the target's past hidden, and with a past that is late
    "base": {"history_dropout": 0.3},
    "click": {"history_dropout": 0.85},
    "nano": LATE,
    "follow": LATE,
    "hear": LATE,
    "stage": {"history_dropout": 0.85},
}
MUSIC = {"click": 0.18, "backing": 0.34, "mix": 0.28, "stem": 0.2}
PULSE = {"click": 0.12, "backing": 0.4, "mix": 0.33, "stem": 0.15}
# What is heard where the click itself is to be played: it is in none of them.
UNDER_CLICK = {"backing:drums": 0.25, "mix:drums": 0.3, "backing:bass": 0.1, "mix:bass": 0.1,
               "mix:keys": 0.1, "drums": 0.05, "bass": 0.05, "guitar": 0.05}  # fmt: skip
COOLING = {"learning_rate": 5e-4, "cooldown_steps": 300}
STAGES = {
    "base": [
        Stage(450, 1.28, 64, NONE, {"learning_rate": 1e-3, "warmup_steps": 100}),
        Stage(600, 5.12, 16, NONE, {"learning_rate": 8e-4}),
        Stage(700, 16.0, 6, NONE, {"learning_rate": 5e-4, "cooldown_steps": 100}),
    ],
    # Copying teaches where to look, clicks come next, mixes last (dev/LOG.md).
    "click": [
        Stage(400, 1.28, 64, {"self": 0.25, "click": 0.4, "mix": 0.35}, {"learning_rate": 1e-3}),
        Stage(1300, 1.92, 44, {"self": 0.05, "click": 0.3, "mix": 0.65}, {"learning_rate": 1e-3}),
        Stage(2050, 3.84, 22, {"click": 0.3, "mix": 0.7}, {"learning_rate": 7e-4}),
        Stage(2450, 8.0, 10, {"click": 0.35, "mix": 0.65}, COOLING),
    ],
    # A past that is late by up to a second makes the model look into the context to find the beat,
    # and so does the click as a target: of all targets it is the one that is nothing but rhythm.
    "nano": [
        Stage(2700, 3.12, 14, MUSIC, {"learning_rate": 8e-4}, clicks=0.35),
        Stage(3500, 8.0, 6, MUSIC, {"learning_rate": 5e-4, "cooldown_steps": 700},
              context_s=(3.0, 8.0), clicks=0.12),
        Stage(4350, 8.0, 6, MUSIC, {"learning_rate": 5e-4, "cooldown_steps": 650},
              context_s=(3.0, 8.0), clicks=0.2),
    ],
    # Asked openly where the beat is (beat_head.py), it makes more of the context (dev/LOG.md).
    "follow": [
        Stage(2700, 8.0, 6, PULSE, {"learning_rate": 5e-4, "cooldown_steps": 500},
              context_s=(3.0, 8.0), clicks=0.15),
    ],
    # What the encoder of the context hears reaches the model as a faint click at first.
    "hear": [
        Stage(800, 8.0, 6, PULSE, {"learning_rate": 5e-4, "cooldown_steps": 300},
              context_s=(3.0, 8.0), clicks=0.12),
    ],
    # STAGE's own positions: what sounds together stands 401 positions apart, and finding it is
    # learnt by copying, for long.
    "stage": [
        Stage(900, 1.28, 64, {"self": 0.5, "click": 0.3, "mix": 0.2},
              {"learning_rate": 1e-3, "warmup_steps": 100}),
        Stage(1800, 1.92, 44, {"self": 0.15, "click": 0.4, "mix": 0.45}, {"learning_rate": 1e-3}),
        Stage(2400, 3.84, 22, {"click": 0.4, "mix": 0.6}, {"learning_rate": 7e-4}),
        Stage(3200, 8.0, 10, {"click": 0.4, "mix": 0.6},
              {"learning_rate": 6e-4, "cooldown_steps": 400}),
    ],
}  # fmt: skip


class Described(ShardDataset):
    """Shards whose mixes, taken as targets, are called a mix."""

    def __getitem__(self, i: int) -> Example:
        example = super().__getitem__(i)
        if example.target_name.startswith("mix:"):
            return dataclasses.replace(example, description=f"mix, {example.family}")
        return example


class Blend(Sequence):
    """Examples of several data sets, each with its share; example i depends on (seed, i) only."""

    def __init__(self, parts: Sequence[tuple[float, Sequence[Example]]], seed: int):
        self.parts, self.seed = parts, seed

    def __len__(self) -> int:
        return min(len(data) for _, data in self.parts)

    def __getitem__(self, i: int) -> Example:
        shares = np.cumsum([share for share, _ in self.parts])
        drawn = np.random.default_rng([self.seed, 2, i]).random() * shares[-1]
        return self.parts[int(np.searchsorted(shares, drawn, "right"))][1][i]


def new_base(tokens: list[Path], codec_folder: Path, dim: int, layers: int) -> StageModel:
    """An untrained model whose vocabulary is that of the shards."""
    codec, codec_config = load_codec(codec_folder)
    shards = ShardDataset(tokens, ["drums"], conditions="none").shards
    lm_config = LMConfig(
        card=codec_config.card,
        dim=dim,
        num_layers=layers,
        num_heads=dim // 64,
        vocabulary=tuple(words_of(shards)),
    )
    config = ModelConfig("nano-base", lm_config, codec_config, None, SHIPPED_S)
    return StageModel(build_lm(lm_config, seed=1), codec, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(STAGES))
    parser.add_argument("--tokens", type=Path, required=True, nargs="+", help="folders of shards")
    parser.add_argument("--codec", type=Path)
    parser.add_argument("--start", type=Path, help="folder of the model to start from")
    parser.add_argument("--encoder", type=Path, help="weights of the context's encoder, for `hear`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--positions", choices=list(POSITIONS))
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("highest")
    nano = args.what != "base"  # the model hears a context
    positions = args.positions or ("anchored" if args.what == "stage" else "aligned")
    if args.start:
        model = load(args.start)
        anchor = POSITIONS[positions] if nano else None
        name = args.out.name
        add_words(model, ["click"])
        model.config = dataclasses.replace(model.config, name=name, anchor_frames=anchor)
    else:
        model = new_base(args.tokens, args.codec, args.dim, args.layers)
    if args.encoder:
        attach_encoder(model, args.encoder, args.tokens)
    shipped = model.config
    # nano-base meets all positions that [context | token | target] will need
    model.config = dataclasses.replace(shipped, trained_s=SHIPPED_S if nano else 2 * SHIPPED_S)
    held_out = [
        ShardDataset(args.tokens, t, window_s=2.56, conditions=[c], split="valid", seed=5, n=48)
        for t, c in HEARD[args.what]
    ]
    follow = args.what in ("follow", "hear")
    head = BeatHead(shipped.lm.dim, model.frame_rate, BEAT_WEIGHT) if follow else None
    for stage in STAGES[args.what]:
        shared = dict(
            window_s=stage.window_s,
            context_s=stage.context_s,
            whole_context=0.5,
            text=TEXTS,
            seed=3,
            split="train",
            n=10**9,
            verify=False,
        )
        targets = TARGETS if nano else TARGETS | MIXES
        data = Described(args.tokens, targets, conditions=stage.conditions, **shared)
        if stage.clicks:
            clicks = ShardDataset(args.tokens, "click", conditions=UNDER_CLICK, **shared)
            data = Blend([(1 - stage.clicks, data), (stage.clicks, clicks)], seed=3)

        def watch(step: int, loss: float) -> None:
            if step % 100 == 0:
                print(step, round(loss, 3), head.watched if head else "", flush=True)
            if step % 250 == 0 and nano:
                watch_listening(model, held_out, args.out, step)

        run = finetune(
            model,
            data,
            steps=max(1, int(stage.until * args.scale)),
            checkpoint_dir=args.out,
            batch_size=stage.batch_size,
            **PAST[args.what],
            text_dropout=0.3,
            spread_positions=True,
            precision="bf16-mixed",
            progress=False,
            on_step=watch,
            save_every=100,
            auxiliary=head,
            **stage.settings,
        )
        if run.interrupted:
            break
    model.config = shipped
    model.save(args.out / "model")


def watch_listening(model: StageModel, held_out: list, out: Path, step: int) -> None:
    """The one curve that matters: what the right context is worth, for clicks and for mixes."""
    from stage_lite.listening import context_losses

    model.lm.eval()
    row = {"step": step}
    for data in held_out:
        losses = context_losses(model, list(data), precision="bf16-mixed")
        condition = next(iter(data.conditions))
        row |= {f"{condition}_{k}": round(v, 4) for k, v in losses.items()}
    model.lm.train()
    with (out / "listening.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print({k: v for k, v in row.items() if "gap" in k or k == "step"}, flush=True)


if __name__ == "__main__":
    main()
