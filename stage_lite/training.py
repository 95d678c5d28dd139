"""Fine-tuning: the loop, plain enough to read, exact enough to kill and go on.

    run = sl.finetune(model, dataset, steps=2000, checkpoint_dir="run")

Everything random about a step (windows, what is dropped or hidden) follows from (seed, example
number) alone, so a run that was killed and started again ends with the same bits as one that was
not, and two processes draw what one would. Lightning Fabric moves the same lines to a GPU or to
several machines. Notebook: 04_finetuning.

Source: Strano et al. 2025 (STAGE), arXiv:2504.05690, sec. 4, for the recipe; the history that is
hidden and the spread of positions are ours (dev/LOG.md says what they are worth).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoint
from .batch import Batch, delay_history, hide_history, make_batch
from .errors import StageLiteError
from .examples import Example
from .listening import context_losses
from .lm import forward
from .prefix import extend_embedding, has_context_row, prefix_loss
from .text import encode_text

if TYPE_CHECKING:
    from .model import StageModel

CHECKPOINT = "checkpoint.safetensors"
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
    precision: str = (
        "32-true"  # of Lightning Fabric: "32-true", "bf16-mixed", "16-mixed" [16-mixed]
    )
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
    fabric: Any = None,
    progress: bool | Callable[[int, int], None] = True,
    log_every: int = 10,
    on_step: Callable[[int, float], None] | None = None,
    auxiliary: nn.Module | None = None,
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
        fabric: a lightning_fabric.Fabric that was launched; None makes one for this machine's CPU
            or the model's GPU.
        progress: a bar, nothing, or a function of (steps done, steps).
        log_every: steps between rows of the log.
        on_step: called with (step, loss) after each step.
        auxiliary: a second thing to learn from the same steps. It is called with (hidden, batch),
            hidden being the last layer's normalised output Float[B, S, dim], and gives a scalar
            that is added to the loss; its parameters are trained and checkpointed too. The logged
            loss stays that of the codes.

    Raises:
        StageLiteError: no data, a checkpoint of other settings or another model, a loss that is
            not finite (the last checkpoint is kept).
    """
    config = _config(config, settings)
    if steps < 1 or len(dataset) < 1:
        raise StageLiteError(
            f"got {steps} steps and {len(dataset)} examples; expected at least 1 of each"
        )
    if not has_context_row(model.lm) and _has_context(dataset):
        extend_embedding(model.lm, init=config.init, seed=config.seed)
    fabric = fabric or _fabric(model, config)
    training = _Training(model, dataset, steps, config, fabric, auxiliary)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    if folder is not None and (folder / CHECKPOINT).exists():
        if not resume:
            raise StageLiteError(
                f"{folder} holds a checkpoint; expected none with resume=False; "
                "give another checkpoint_dir or delete it"
            )
        training.restore(folder / CHECKPOINT)
    return _loop(training, folder, validation, progress, log_every, on_step)


class _Sealed:
    """A batch that Fabric passes on untouched (it would take a frozen dataclass apart)."""

    def __init__(self, batch: Batch):
        self.batch = batch


class _Step(nn.Module):
    """Inputs -> loss per codebook; a module, so that Fabric can wrap it for precision and DDP."""

    def __init__(self, model: StageModel, auxiliary: nn.Module | None):
        super().__init__()
        self.lm, self.auxiliary = model.lm, auxiliary

    def forward(self, sealed: _Sealed) -> tuple[Tensor, Tensor, Tensor | float]:
        batch = sealed.batch
        text, text_mask = encode_text(self.lm, batch.descriptions)
        prefix = batch.prefix
        logits, hidden = forward(
            self.lm,
            batch.inputs,
            prefix.attention_mask,
            prefix.positions,
            text,
            text_mask,
            first_step=prefix.target_start - 1,
            need_hidden=True,
        )
        more = 0.0 if self.auxiliary is None else self.auxiliary(hidden, batch)
        return *prefix_loss(logits, prefix), more


class _Training:
    """Model, optimizer and the number of the next step."""

    def __init__(self, model, dataset, steps: int, config: TrainingConfig, fabric, auxiliary):
        self.model, self.dataset, self.steps = model, dataset, steps
        self.config, self.fabric, self.step = config, fabric, 0
        self.auxiliary = auxiliary
        self.log: list[dict[str, Any]] = []
        rows = config.batch_size // (config.accumulation * fabric.world_size)
        if rows * config.accumulation * fabric.world_size != config.batch_size:
            raise StageLiteError(
                f"batch_size {config.batch_size} does not divide into {config.accumulation} "
                f"accumulation steps on {fabric.world_size} processes"
            )
        self.rows = rows  # examples of one forward pass of this process
        learned = [model.lm] if auxiliary is None else [model.lm, auxiliary]
        parameters = [p for module in learned for p in module.parameters() if p.requires_grad]
        on_cpu_or_gpu = fabric.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=on_cpu_or_gpu,
        )
        self.module, self.fabric_optimizer = fabric.setup(_Step(model, auxiliary), self.optimizer)
        self._ahead: dict[int, Any] = {}
        self._pool = ThreadPoolExecutor(1)

    def learning_rate(self) -> float:
        config = self.config
        rate = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        left = (self.steps - self.step) / max(1, config.cooldown_steps)
        return rate * max(0.05, min(1.0, left))

    def train_step(self) -> tuple[float, list[float]]:
        """One optimizer step; returns the loss and the loss per codebook of this process."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        batches = self._batches()
        losses, codebooks = [], []
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with self.fabric.no_backward_sync(self.module, enabled=not last):
                loss, per_codebook, more = self.module(_Sealed(batch))
                self.fabric.backward((loss + more) / len(batches))
            losses.append(loss.detach())
            codebooks.append(per_codebook.detach())
        loss = torch.stack(losses).mean()
        if not torch.isfinite(loss):
            raise StageLiteError(
                f"the loss is {float(loss)} at step {self.step}; the last checkpoint is kept; "
                "try a lower learning_rate or precision='32-true'"
            )
        self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.config.clip_norm)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss), torch.stack(codebooks).mean(0).tolist()

    def _batches(self) -> list[Batch]:
        future = self._ahead.pop(self.step, None)
        batches = future.result() if future else self._make(self.step)
        self._ahead = {}
        if self.step + 1 < self.steps:
            self._ahead[self.step + 1] = self._pool.submit(self._make, self.step + 1)
        return batches

    def _make(self, step: int) -> list[Batch]:
        # Rank r takes rows r, r + world, ...: together the processes see what one would see.
        first = step * self.config.batch_size
        numbers = range(first + self.fabric.global_rank, first + self.config.batch_size,
                        self.fabric.world_size)  # fmt: skip
        parts = [numbers[i : i + self.rows] for i in range(0, len(numbers), self.rows)]
        return [self._batch(part) for part in parts]

    def _batch(self, numbers: Iterable[int]) -> Batch:
        config, model = self.config, self.model
        examples = [self.dataset[i % len(self.dataset)] for i in numbers]
        draws = [np.random.default_rng([config.seed, 1, i]) for i in numbers]
        fate = np.stack([rng.random(5) for rng in draws])  # [B, 5]: always drawn, so comparable
        offsets = None
        if config.spread_positions:
            longest = round(model.config.trained_s * model.frame_rate)
            room = [max(0, longest - _n_frames(model, e)) for e in examples]
            offsets = torch.tensor(
                [int(f * (r + 1)) for f, r in zip(fate[:, 2], room, strict=True)]
            )
        batch = make_batch(
            model,
            examples,
            context_dropped=torch.from_numpy(fate[:, 0] < config.context_dropout),
            text_dropped=torch.from_numpy(fate[:, 1] < config.text_dropout),
            position_offset=offsets,
        )
        if config.history_dropout:
            n_steps = batch.prefix.sequence.shape[2]
            share = np.where(fate[:, 3] < config.history_dropout, fate[:, 4], 0.0)
            hidden = np.stack([rng.random(n_steps) for rng in draws]) < share[:, None]
            batch = hide_history(batch, torch.from_numpy(hidden), model.special_token_id)
        if config.history_delay:
            late = np.stack([rng.random(2) for rng in draws])  # drawn last: older runs stay as is
            longest = max(1, round(config.longest_delay_s * model.frame_rate))
            frames = 1 + (late[:, 1] * longest).astype(np.int64)
            frames[late[:, 0] >= config.history_delay] = 0
            batch = delay_history(batch, torch.from_numpy(frames), model.special_token_id)
        return batch

    def state(self) -> dict[str, Tensor]:
        modules = checkpoint.pack("lm", self.model.lm.state_dict())
        if self.auxiliary is not None:
            modules |= checkpoint.pack("auxiliary", self.auxiliary.state_dict())
        return modules | checkpoint.pack_optimizer("optimizer", self.optimizer)

    def save(self, folder: Path) -> None:
        if self.fabric.is_global_zero:
            meta = {"step": self.step, "config": asdict(self.config), "log": self.log}
            checkpoint.save_checkpoint(folder / CHECKPOINT, self.state(), meta)

    def restore(self, path: Path) -> None:
        tensors, meta = checkpoint.load_checkpoint(path)
        if meta["config"]["seed"] != self.config.seed:
            raise StageLiteError(
                f"{path} was made with seed {meta['config']['seed']}, this run has "
                f"{self.config.seed}; give the same seed or another checkpoint_dir"
            )
        try:
            self.model.lm.load_state_dict(checkpoint.unpack("lm", tensors))
            if self.auxiliary is not None:
                self.auxiliary.load_state_dict(checkpoint.unpack("auxiliary", tensors))
            checkpoint.unpack_optimizer("optimizer", tensors, self.optimizer)
        except (RuntimeError, ValueError) as error:
            raise StageLiteError(
                f"{path} is of another model ({str(error).splitlines()[0]}); "
                "give another checkpoint_dir"
            ) from None
        self.step, self.log = meta["step"], meta["log"]


def _loop(training, folder, validation, progress, log_every, on_step) -> Run:
    """Steps, log rows, validations and checkpoints, until done or Ctrl-C."""
    config, model, bar = training.config, training.model, _bar(progress, training)
    model.lm.train()
    interrupted, since, began = False, [], time.perf_counter()
    try:
        if training.step == 0 and validation:
            _record(training, folder, {"step": 0} | _validate(training, validation))
        while training.step < training.steps:
            loss, per_codebook = training.train_step()
            since.append([loss, *per_codebook])
            bar(training.step, loss)
            if on_step:
                on_step(training.step, loss)
            last = training.step == training.steps
            validate = validation and (training.step % config.validate_every == 0 or last)
            if training.step % log_every == 0 or validate or last:
                means = np.mean(since, axis=0).round(4).tolist()
                row = {"step": training.step, "loss": means[0], "loss_per_codebook": means[1:]}
                row |= {"lr": training.learning_rate()}
                row["seconds"] = round(time.perf_counter() - began, 2)
                since = []
                if validate:
                    row |= _validate(training, validation)
                _record(training, folder, row)
            if folder is not None and (training.step % config.save_every == 0 or last):
                training.save(folder)
    except KeyboardInterrupt:
        interrupted = True
        if folder is not None:
            training.save(folder)
        where = f"; run the same call to go on from {folder}" if folder else ""
        print(f"stopped at step {training.step} of {training.steps}{where}")
    finally:
        training._pool.shutdown(wait=True, cancel_futures=True)
        bar(None, None)
        model.lm.eval()
    return Run(model, training.step, training.log, interrupted)


def _validate(training: _Training, examples: Sequence[Example]) -> dict[str, float]:
    training.model.lm.eval()
    try:
        losses = context_losses(training.model, list(examples), precision=training.config.precision)
    finally:
        training.model.lm.train()
    return {f"valid_{name}": round(value, 4) for name, value in losses.items()}


def _record(training: _Training, folder: Path | None, row: dict[str, Any]) -> None:
    training.log.append(row)
    if folder is not None and training.fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")


def _bar(progress, training) -> Callable[[int | None, float | None], None]:
    if callable(progress):
        return lambda step, loss: None if step is None else progress(step, training.steps)
    if not progress or not training.fabric.is_global_zero:
        return lambda step, loss: None
    from tqdm.auto import tqdm

    bar = tqdm(total=training.steps, initial=training.step, desc="fine-tuning", unit="step")

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


def _fabric(model: StageModel, config: TrainingConfig) -> Any:
    from lightning_fabric import Fabric

    device = model.device
    fabric = Fabric(accelerator=device.type, devices=1, precision=config.precision)
    fabric.launch()
    return fabric


def _has_context(dataset: Sequence[Example]) -> bool:
    examples = (dataset[i] for i in range(min(8, len(dataset))))
    return any(e.context is not None or e.context_codes is not None for e in examples)


def _n_frames(model: StageModel, example: Example) -> int:
    if example.target_codes is not None:
        return example.target_codes.shape[-1]
    return round(example.duration_s * model.frame_rate)
