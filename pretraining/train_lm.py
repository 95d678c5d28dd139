"""Train nano-base (text to one stem or a mix) and, from it, nano (STAGE: context, token, target).

    python pretraining/train_lm.py base --tokens work/tokens --codec CODEC --out work/base
    python pretraining/train_lm.py click --tokens work/tokens --start work/base/model --out work/1
    python pretraining/train_lm.py nano --tokens work/tokens --start work/1/model --out work/nano

`click` adds the token and ends with a model that keeps time with a click, `nano` goes on to mixes.
Each is a list of stages, short windows first; a stage is a data set and the step at which it ends.
The optimizer goes on from stage to stage. Run it again to go on where it was. `--scale 0.01` runs
everything in a hundredth of the steps, to try the machinery.
"""

import argparse
import dataclasses
import json
import signal
from pathlib import Path

import torch
from vocabulary import words_of

from stage_lite.codec import load_codec
from stage_lite.examples import Example
from stage_lite.lm import LMConfig, build_lm
from stage_lite.model import ModelConfig, StageModel, load
from stage_lite.prefix import ALIGNED
from stage_lite.shards import ShardDataset
from stage_lite.training import finetune

TARGETS = {"drums": 0.4, "bass": 0.3, "keys": 0.18, "guitar": 0.12}
MIXES = {f"mix:{target}": 0.05 for target in TARGETS}  # for nano-base, described as "mix, ..."
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


NONE = {"none": 1.0}
HEARD = {"base": ["none"], "click": ["click", "mix"], "nano": ["click", "mix", "backing"]}
HIDDEN = {"base": 0.3, "click": 0.85, "nano": 0.6}  # share of windows with some of the past hidden
MUSIC = {"click": 0.18, "backing": 0.34, "mix": 0.28, "stem": 0.2}
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
    # A past that is late by up to a second makes the model look into the context to find the beat.
    "nano": [
        Stage(4000, 2.56, 16, MUSIC, {"learning_rate": 8e-4, "history_delay": 0.4}),
        Stage(5200, 8.0, 6, MUSIC,
              {"learning_rate": 5e-4, "cooldown_steps": 1000, "history_delay": 0.4}, (3.0, 8.0)),
    ],
}  # fmt: skip


class Described(ShardDataset):
    """Shards whose mixes, taken as targets, are called a mix."""

    def __getitem__(self, i: int) -> Example:
        example = super().__getitem__(i)
        if example.target_name.startswith("mix:"):
            return dataclasses.replace(example, description=f"mix, {example.family}")
        return example


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
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--positions", choices=list(POSITIONS), default="aligned")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("highest")
    nano = args.what != "base"  # the model hears a context
    if args.start:
        model = load(args.start)
        anchor = POSITIONS[args.positions] if nano else None
        name = args.out.name
        model.config = dataclasses.replace(model.config, name=name, anchor_frames=anchor)
    else:
        model = new_base(args.tokens, args.codec, args.dim, args.layers)
    shipped = model.config
    # nano-base meets all positions that [context | token | target] will need
    model.config = dataclasses.replace(shipped, trained_s=SHIPPED_S if nano else 2 * SHIPPED_S)
    held_out = [
        ShardDataset(
            args.tokens, "drums", window_s=2.56, conditions=[c], split="valid", seed=5, n=48
        )
        for c in HEARD[args.what]
    ]
    for stage in STAGES[args.what]:
        data = Described(
            args.tokens,
            TARGETS if nano else TARGETS | MIXES,
            window_s=stage.window_s,
            conditions=stage.conditions,
            context_s=stage.context_s,
            whole_context=0.5,
            text=TEXTS,
            seed=3,
            split="train",
            n=10**9,
            verify=False,
        )

        def watch(step: int, loss: float) -> None:
            if step % 100 == 0:
                print(step, round(loss, 3), flush=True)
            if step % 500 == 0 and nano:
                watch_listening(model, held_out, args.out, step)

        run = finetune(
            model,
            data,
            steps=max(1, int(stage.until * args.scale)),
            checkpoint_dir=args.out,
            batch_size=stage.batch_size,
            history_dropout=HIDDEN[args.what],
            text_dropout=0.3,
            spread_positions=True,
            precision="bf16-mixed",
            progress=False,
            on_step=watch,
            save_every=100,
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
