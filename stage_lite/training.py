"""Fine-tuning: the loop, plain enough to read, exact enough to kill and go on.

    run = sl.finetune(model, dataset, steps=2000, checkpoint_dir="run")

Everything random about a step (windows, what is dropped or hidden) follows from (seed, example
number) alone, so a run that was killed and started again ends with the same bits as one that was
not, and two processes draw what one would. Notebook: 04_fine_tuning.

On several GPUs, or machines, the same lines run in every process that torchrun starts, each with
its part of the batch (processes.py says what `strategy` means):

    torchrun --nproc-per-node 4 --max-restarts 3 my_script.py       # any script that calls finetune
    torchrun --nproc-per-node 4 -m stage_lite train --data songs --checkpoint-dir runs/drums

`batch_size` counts the windows of all processes. A process that dies takes the others with it;
`--max-restarts` starts all of them again, and they go on from the last checkpoint.

Source: Strano et al. 2025 (STAGE), arXiv:2504.05690, sec. 4, for the recipe; the history that is
hidden and the spread of positions are ours (dev/LOG.md says what they are worth).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from .batch import Batch
from .errors import StageLiteError
from .examples import Example
from .files import write_atomic
from .listening import context_losses
from .prefix import extend_embedding, has_context_row
from .processes import check_fabric, launch_fabric
from .trainer import CHECKPOINT, Trainer

if TYPE_CHECKING:
    from .model import StageModel

LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults suit a fine-tune of a nano model; STAGE's values in brackets."""

    batch_size: int = 8  # windows per optimizer step, over all processes [8]
    accumulation: int = 1  # forward passes that share one optimizer step [4]
    learning_rate: float = 3e-4  # [1e-5, for a model sixty times as large]
    betas: tuple[float, float] = (0.9, 0.95)  # [the same]
    weight_decay: float = 1e-3  # [the same]
    warmup_steps: int = 50  # learning rate rises linearly [0]
    cooldown_steps: int = 0  # falls linearly to a twentieth over the last ones of the run [0]
    clip_norm: float = 1.0  # of the gradient [clips by value 1.0]
    context_dropout: float = 0.1  # share of windows without context [the same]
    text_dropout: float = 0.5  # share of windows without text [the same]
    history_dropout: float = (
        0.0  # share of windows in which part of the target's past is hidden [0]
    )
    history_delay: float = 0.0  # share of windows in which the target's past comes late [0]
    longest_delay_s: float = 1.0  # by how much at most
    spread_positions: bool = False  # shift windows shorter than trained_s over all positions [no]
    precision: str = "32-true"  # or "bf16-mixed", or on GPUs "16-mixed" [16-mixed]
    activation_checkpointing: bool = False  # a third more work, a fraction of the memory [no]
    lora_rank: int = 0  # of LoRA's matrices, see lora.py; 0 trains all weights [all]
    lora_alpha: float = 16.0  # their scaling, times lora_rank
    init: str = "kaiming"  # of the context token, if the model has none yet [the same]
    save_every: int = 200  # steps; and at the end, and on Ctrl-C
    validate_every: int = 200  # steps; the first is step 0
    seed: int = 0


@dataclass
class Run:
    """What a training run leaves: the model (trained in place) and its history."""

    model: StageModel
    step: int
    log: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    rank: int = 0  # of this process among those that trained together: let the first one save

    def history(self) -> Any:
        """The log as a pandas table, one row per logged step."""
        import pandas as pd

        return pd.DataFrame(self.log)


def finetune(
    model: StageModel,
    dataset: Sequence[Example],
    *,
    steps: int,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    validation: Sequence[Example] | None = None,
    config: TrainingConfig | None = None,
    strategy: str | None = None,
    devices: int | None = None,
    fabric: Any = None,
    progress: bool | Callable[[int, int], None] = True,
    log_every: int = 10,
    on_step: Callable[[int, float], None] | None = None,
    auxiliary: nn.Module | None = None,
    lay_out: Callable[[Batch], Batch] | None = None,
    **settings: Any,
) -> Run:
    """Train the LM of a model, in place, up to `steps` optimizer steps in all.

    A model without the context token gets one, if the data have contexts. The codec is frozen.
    Ctrl-C stops after writing a checkpoint; the same call goes on from there.

    Args:
        model: a StageModel; its LM is changed.
        dataset: gives Examples by number, e.g. StemDataset or ShardDataset; example i of it is used
            in step i // batch_size, and again from the start when the numbers run out.
        steps: the step to train up to: with a checkpoint at step 300, steps=500 makes 200 more.
        checkpoint_dir: where `checkpoint.safetensors` and `log.jsonl` go; None keeps nothing.
        resume: go on from the checkpoint there; False refuses to overwrite one.
        validation: held-out examples; see `listening.context_losses`.
        config: a TrainingConfig; single fields can be given as keywords instead or besides.
        strategy: "ddp" or "fsdp" over the processes that torchrun started; None is "ddp" if it
            started several.
        devices: how many of them on this machine, if you want it checked.
        fabric: a lightning_fabric.Fabric of your own that was launched, instead of the two above;
            None makes one for this machine's CPU or the model's GPU.
        progress: a bar, nothing, or a function of (steps done, steps).
        log_every: steps between rows of the log.
        on_step: called with (step, loss) after each step.
        auxiliary: a second thing to learn from the same steps. It is called with (hidden, batch),
            hidden being the last layer's normalised output Float[B, S, dim], and gives a scalar
            that is added to the loss; its parameters are trained and checkpointed too. The logged
            loss stays that of the codes.
        lay_out: turns each batch, laid out as STAGE does, into another way of giving the context;
            what it returns may be of a class of your own with its own `logits`. `evidence/ways.py`
            has four.

    Raises:
        StageLiteError: no data, a batch that does not divide, too little memory, processes that
            cannot be had, a checkpoint of other settings or another model, a loss that is not
            finite (the last checkpoint is kept).
    """
    config = _config(config, settings)
    if steps < 1 or len(dataset) < 1:
        raise StageLiteError(
            f"got {steps} steps and {len(dataset)} examples; expected at least 1 of each"
        )
    if not has_context_row(model.lm) and _has_context(dataset):
        extend_embedding(model.lm, init=config.init, seed=config.seed)
    if fabric is None:
        fabric = launch_fabric(model.device.type, config.precision, strategy, devices)
    else:
        check_fabric(fabric, strategy, devices)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    saved = folder / CHECKPOINT if folder is not None and (folder / CHECKPOINT).exists() else None
    if saved and not resume:
        raise StageLiteError(
            f"{folder} holds a checkpoint; expected none with resume=False; "
            "give another checkpoint_dir or delete it"
        )
    trainer = Trainer(model, dataset, steps, config, fabric, auxiliary, saved, lay_out)
    if saved and fabric.is_global_zero:  # without the rows of steps that will come again
        write_atomic(saved.with_name(LOG), "".join(map(_line, trainer.log)))
    return _loop(trainer, folder, validation, progress, log_every, on_step)


def _loop(trainer: Trainer, folder, validation, progress, log_every, on_step) -> Run:
    """Steps, log rows, validations and checkpoints, until done or Ctrl-C."""
    config, model, bar = trainer.config, trainer.model, _bar(progress, trainer)
    model.lm.train()
    interrupted, failed, since, began = False, True, [], time.perf_counter()
    try:
        with trainer.interrupts.listening():
            if trainer.step == 0 and validation:
                _record(trainer, folder, {"step": 0} | _validate(trainer, validation))
            while trainer.step < trainer.steps:
                loss, per_codebook = trainer.train_step()
                since.append([loss, *per_codebook])
                bar(trainer.step, loss)
                if on_step:
                    on_step(trainer.step, loss)
                last = trainer.step == trainer.steps
                if trainer.stopping and not last:
                    raise KeyboardInterrupt
                validate = validation and (trainer.step % config.validate_every == 0 or last)
                if trainer.step % log_every == 0 or validate or last:
                    means = np.mean(since, axis=0).round(4).tolist()
                    row = {"step": trainer.step, "loss": means[0], "loss_per_codebook": means[1:]}
                    row |= {"lr": trainer.learning_rate()}
                    row["seconds"] = round(time.perf_counter() - began, 2)
                    since = []
                    if validate:
                        row |= _validate(trainer, validation)
                    _record(trainer, folder, row)
                if folder is not None and (trainer.step % config.save_every == 0 or last):
                    trainer.save(folder)
        failed = False
    except KeyboardInterrupt:
        interrupted, failed = True, False
        if folder is not None:
            trainer.save(folder)
        where = f"; run the same call to go on from {folder}" if folder else ""
        if trainer.fabric.is_global_zero:
            print(f"stopped at step {trainer.step} of {trainer.steps}{where}")
    finally:
        bar(None, None)
        trainer.close(failed)
        model.lm.eval()
    return Run(model, trainer.step, trainer.log, interrupted, trainer.fabric.global_rank)


def _validate(trainer: Trainer, examples: Sequence[Example]) -> dict[str, float]:
    trainer.model.lm.eval()
    try:
        with trainer.whole():
            losses = context_losses(
                trainer.model, list(examples), precision=trainer.config.precision
            )
    finally:
        trainer.model.lm.train()
    return {f"valid_{name}": round(value, 4) for name, value in losses.items()}


def _record(trainer: Trainer, folder: Path | None, row: dict[str, Any]) -> None:
    trainer.log.append(row)
    if folder is not None and trainer.fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a") as file:
            file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _bar(progress, trainer: Trainer) -> Callable[[int | None, float | None], None]:
    if not trainer.fabric.is_global_zero:
        return lambda step, loss: None
    if callable(progress):
        return lambda step, loss: None if step is None else progress(step, trainer.steps)
    if not progress:
        return lambda step, loss: None
    from tqdm.auto import tqdm

    bar = tqdm(total=trainer.steps, initial=trainer.step, desc="fine-tuning", unit="step")

    def show(step: int | None, loss: float | None) -> None:
        if step is None:
            bar.close()
        else:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.3f}")

    return show


def _config(config: TrainingConfig | None, settings: dict[str, Any]) -> TrainingConfig:
    values = asdict(config or TrainingConfig())
    unknown = sorted(set(settings) - set(values))
    if unknown:
        raise StageLiteError(f"unknown settings {unknown}; expected some of {sorted(values)}")
    return TrainingConfig(**(values | settings))


def _has_context(dataset: Sequence[Example]) -> bool:
    examples = (dataset[i] for i in range(min(8, len(dataset))))
    return any(e.context is not None or e.context_codes is not None for e in examples)
