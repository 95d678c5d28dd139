"""What torchrun runs in test_training_distributed.py: trainings of the tiny model, results on disk.

torchrun --nproc-per-node 2 distributed_run.py FOLDER NAME [NAME ...]
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from conftest import make_tiny_model
from safetensors.torch import save_file
from test_training import example

from stage_lite.__main__ import main
from stage_lite.training import finetune

# Windows of several lengths: each process, and each part of a batch, has another number of codes.
# So have their texts, which are padded to the longest of a batch.
DATA = [example(i, n_frames=8 + 5 * (i % 3)) for i in range(24)]
for one in DATA[::4]:
    one.description = "drums bass keys guitar rock bossa nova rock bass drums"
SETTINGS = {
    "batch_size": 8,
    "warmup_steps": 2,
    "history_dropout": 0.5,
    "spread_positions": True,
    "text_dropout": 0.8,  # now and then one process has a text and the other none
    "save_every": 2,
    "log_every": 1,
}
STEPS = 6
WAYS = {
    "plain": {},
    "killed": {},  # one process, with -9, after its fifth step
    "ddp": {"strategy": "ddp", "devices": 2},
    "accumulation": {"accumulation": 2, "activation_checkpointing": True},
    "fsdp": {"strategy": "fsdp", "validation": DATA[:10]},
    "fsdp_resumed": {"strategy": "fsdp"},
    "interrupted": {"strategy": "fsdp"},  # one process, by Ctrl-C, after its third step
    "lora": {"lora_rank": 2},
    "lora_fsdp": {"lora_rank": 2, "strategy": "fsdp", "accumulation": 2},
}


def run(folder: Path, name: str) -> None:
    """Train in one way; leaves its losses, `<name>.json`, and weights, `<name>.safetensors`."""
    losses: list[float] = []
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    rank = int(os.environ.get("RANK", "0"))

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if name == "killed" and step == 5 and rank == 1 and first_life:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "interrupted" and step == 3 and rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    lives = {"fsdp_resumed": (3, STEPS), "interrupted": (STEPS, STEPS)}
    for steps in lives.get(name, (STEPS,)):
        model = make_tiny_model(context_token=False, trained_s=0.5)
        finetune(
            model,
            DATA,
            steps=steps,
            checkpoint_dir=folder / name,
            progress=False,
            on_step=on_step,
            **(SETTINGS | WAYS[name]),
        )
    if rank == 0:
        state = {k: v.contiguous().clone() for k, v in model.lm.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(losses))


def command(folder: Path) -> None:
    """`stage-lite train` in every process."""
    words = ["train", "--data", folder / "songs", "--model", folder / "base", "--window", 1,
             "--steps", 2, "--batch-size", 2, "--checkpoint-dir", folder / "command",
             "--strategy", "ddp", "--devices", 2]  # fmt: skip
    assert main([str(word) for word in words]) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[2:]:
        if wanted == "command":
            command(Path(sys.argv[1]))
        else:
            run(Path(sys.argv[1]), wanted)
