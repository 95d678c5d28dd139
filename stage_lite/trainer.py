"""One optimizer step after the other: batches, loss, gradients, and the state that is kept.

Everything random about a step follows from (seed, example number), and rank r of the processes
takes rows r, r + world, ... of it: together they see what one would. Each forward pass weighs its
loss by its share of the step's codes, so that accumulation and processes make no difference either,
whatever the lengths of the windows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from . import checkpoint
from .batch import Batch, delay_history, hide_history, make_batch
from .errors import StageLiteError
from .examples import Example
from .interrupts import Interrupts
from .lora import Adapters
from .memory import check_training_memory, training_bytes
from .prefix import prefix_loss
from .processes import gather, is_sharded, make_whole, part_of, whole, whole_weights
from .text import encode_text, text_conditioner

if TYPE_CHECKING:
    from .model import StageModel
    from .training import TrainingConfig

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class _Drawn:
    """A batch, and the numbers that decide what of the target's past is hidden in its rows."""

    batch: Batch
    fate: Float[ndarray, "B 5"]
    draws: list[np.random.Generator]


class _Sealed:
    """A batch that Fabric passes on untouched (it would take a frozen dataclass apart).

    Args:
        n_words: length to pad the texts to, with the zeros that a longer neighbour would bring;
            above 0, even null texts are read, so that in all processes the same weights take part.
    """

    def __init__(self, batch: Batch, n_words: int):
        self.batch, self.n_words = batch, n_words


class _Step(nn.Module):
    """Inputs -> loss per codebook; a module, so that Fabric can wrap it for precision and DDP."""

    def __init__(self, model: StageModel, auxiliary: nn.Module | None, recompute: bool):
        super().__init__()
        self.lm, self.auxiliary, self.recompute = model.lm, auxiliary, recompute

    def forward(self, sealed: _Sealed) -> tuple[Tensor, Tensor | float]:
        batch, prefix = sealed.batch, sealed.batch.prefix
        text, text_mask = encode_text(self.lm, batch.descriptions)
        if sealed.n_words:
            if text is None:
                conditioner = text_conditioner(self.lm)
                text, text_mask = conditioner(conditioner.tokenize(list(batch.descriptions)))
            more_words = max(0, sealed.n_words - text.shape[1])
            text = nn.functional.pad(text, (0, 0, 0, more_words))
            text_mask = nn.functional.pad(text_mask.bool(), (0, more_words))
        logits, hidden = batch.logits(
            self.lm, (text, text_mask), need_hidden=True, recompute=self.recompute
        )
        more = 0.0 if self.auxiliary is None else self.auxiliary(hidden, batch)
        return prefix_loss(logits, prefix)[1], more


class Trainer:
    """Model, optimizer and the number of the next step.

    Args:
        model: its LM is trained in place; with LoRA or fsdp it is an ordinary one after `close`.
        dataset: examples by number.
        steps: the step to train up to.
        config: see training.TrainingConfig.
        fabric: a lightning_fabric.Fabric that was launched.
        auxiliary: see training.finetune.
        saved: a checkpoint to go on from.
        lay_out: see training.finetune.

    Raises:
        StageLiteError: a batch that does not divide, a checkpoint of another run.
    """

    def __init__(
        self,
        model: StageModel,
        dataset: Sequence[Example],
        steps: int,
        config: TrainingConfig,
        fabric: Any,
        auxiliary: nn.Module | None = None,
        saved: Path | None = None,
        lay_out: Callable[[Batch], Batch] | None = None,
    ):
        self.model, self.dataset, self.steps = model, dataset, steps
        self.config, self.fabric, self.step = config, fabric, 0
        self.auxiliary, self.lay_out = auxiliary, lay_out
        self.log: list[dict[str, Any]] = []
        self.interrupts = Interrupts(together=fabric.world_size > 1)
        self.stopping = False  # one of several processes was interrupted: all stop after this step
        self.rows = self._rows()  # examples of one forward pass of this process
        if len(dataset) < config.batch_size:
            warnings.warn(
                f"the data set has {len(dataset)} windows, a step takes {config.batch_size}: every "
                "step sees some of them twice; take more windows (n=...) or a smaller batch_size",
                stacklevel=4,
            )
        model.to(fabric.device)
        self._adapters = None
        tensors, meta = checkpoint.load_checkpoint(saved) if saved else ({}, {})
        if saved:
            self._check_same_run(saved, meta)
        if config.lora_rank:
            self._adapters = Adapters(model.lm, config.lora_rank, config.lora_alpha, config.seed)
        try:
            self._restore_weights(saved, tensors)
            self._wrap()
            if saved:
                self._restore_optimizer(saved, tensors, meta)
            self._check_together()
        except StageLiteError:
            self.close(failed=True)
            raise
        self._checked_memory = False
        self._ahead: dict[int, Any] = {}
        self._pool = ThreadPoolExecutor(1)

    # --- steps -----------------------------------------------------------------------------------

    def learning_rate(self) -> float:
        config = self.config
        rate = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        if not config.cooldown_steps:
            return rate
        left = (self.steps - self.step) / config.cooldown_steps
        return rate * max(0.05, min(1.0, left))

    def train_step(self) -> tuple[float, list[float]]:
        """One optimizer step; returns the loss and the loss per codebook over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        try:
            per_codebook = self._gradients(self._batches())
        except torch.OutOfMemoryError as error:
            raise StageLiteError(
                f"{self.fabric.device} is out of memory at step {self.step} ({error}); the last "
                "checkpoint is kept; try a larger accumulation, activation_checkpointing=True or "
                "lora_rank=8"
            ) from None
        loss = float(per_codebook.mean())
        if not np.isfinite(loss):
            raise StageLiteError(
                f"the loss is {loss} at step {self.step}; the last checkpoint is kept; "
                "try a lower learning_rate or precision='32-true'"
            )
        with self.interrupts.held():
            self._clip()
            self.fabric_optimizer.step()
            self.fabric_optimizer.zero_grad(set_to_none=True)
            self.step += 1
        return loss, per_codebook.tolist()

    def _clip(self) -> None:
        """Bound the gradients' norm; fp16 skips a step whose gradients overflow, others stop."""
        scaled = self.config.precision == "16-mixed"
        try:
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=self.config.clip_norm,
                error_if_nonfinite=not scaled,
            )
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise StageLiteError(
                f"the gradients are not finite at step {self.step}; the last checkpoint is kept; "
                "try a lower learning_rate or precision='32-true'"
            ) from None

    def _gradients(self, drawn: list[_Drawn]) -> Tensor:
        """Forward and backward over the step's batches; the loss of each codebook [K]."""
        if not self._checked_memory:
            self._check_memory(drawn[0].batch)
        fabric, world = self.fabric, self.fabric.world_size
        counts = [_n_codes(d.batch) for d in drawn]  # [K] each
        n_words = self._n_words(drawn) if world > 1 or len(drawn) > 1 else 0
        before = max(d.batch.prefix.target_start for d in drawn)
        after = max(d.batch.inputs.shape[2] - d.batch.prefix.target_start for d in drawn)
        all_codes = torch.stack(counts).sum(0)
        if world > 1:
            mine = torch.cat([all_codes, all_codes.new_tensor([n_words, before, after])])
            *sums, words, befores, afters = gather(mine).T  # [world] each
            all_codes = torch.stack(sums).sum(1)
            n_words, before, after = int(words.max()), int(befores.max()), int(afters.max())
        per_codebook = torch.zeros(all_codes.shape, device=all_codes.device)
        for i, (d, n_codes) in enumerate(zip(drawn, counts, strict=True)):
            share = n_codes / all_codes.clamp(min=1)  # of this pass in the step, per codebook
            batch = self._with_a_past(d, before, after)
            last = i == len(drawn) - 1
            with fabric.no_backward_sync(self.module, enabled=not last):
                losses, more = self.module(_Sealed(batch, n_words))
                losses = losses * share
                # Gradients are averaged over the processes, the shares add up: hence `world`.
                fabric.backward(losses.mean() * world + more / len(drawn))
            per_codebook += losses.detach()
        if world > 1:
            asked = per_codebook.new_tensor([self.interrupts.asked])
            sums = gather(torch.cat([per_codebook, asked])).sum(0)
            per_codebook, self.stopping = sums[:-1], bool(sums[-1])
        return per_codebook

    def _n_words(self, drawn: list[_Drawn]) -> int:
        """Length of the longest text, 0 if there is none."""
        texts = [text for d in drawn for text in d.batch.descriptions]
        if not any(text and text.strip() for text in texts):
            return 0
        tokens = text_conditioner(self.model.lm).tokenize(texts)
        return max(tensor.shape[1] for tensor in tokens.values())

    def _batches(self) -> list[_Drawn]:
        future = self._ahead.pop(self.step, None)
        batches = future.result() if future else self._make(self.step)
        self._ahead = {}
        if self.step + 1 < self.steps:
            self._ahead[self.step + 1] = self._pool.submit(self._make, self.step + 1)
        return batches

    def _make(self, step: int) -> list[_Drawn]:
        first = step * self.config.batch_size
        numbers = range(first + self.fabric.global_rank, first + self.config.batch_size,
                        self.fabric.world_size)  # fmt: skip
        parts = [numbers[i : i + self.rows] for i in range(0, len(numbers), self.rows)]
        return [self._batch(part) for part in parts]

    def _batch(self, numbers: Iterable[int]) -> _Drawn:
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
        return _Drawn(batch if self.lay_out is None else self.lay_out(batch), fate, draws)

    def _with_a_past(self, drawn: _Drawn, before: int, after: int) -> Batch:
        """Hide or delay some of the target's past.

        Args:
            before, after: steps before and from the target's first one on of the widest batch of
                this optimizer step; numbers are drawn for that one, so that each row has the same
                ones however the step is divided.
        """
        config, batch, draws, fate = self.config, drawn.batch, drawn.draws, drawn.fate
        if config.history_dropout:
            start = before - batch.prefix.target_start
            steps = slice(start, start + batch.inputs.shape[2])
            share = np.where(fate[:, 3] < config.history_dropout, fate[:, 4], 0.0)
            numbers = np.stack([rng.random(before + after)[steps] for rng in draws])
            hidden = torch.from_numpy(numbers < share[:, None])
            batch = hide_history(batch, hidden, self.model.special_token_id)
        if config.history_delay:
            late = np.stack([rng.random(2) for rng in draws])  # drawn last: older runs stay as is
            longest = max(1, round(config.longest_delay_s * self.model.frame_rate))
            frames = 1 + (late[:, 1] * longest).astype(np.int64)
            frames[late[:, 0] >= config.history_delay] = 0
            batch = delay_history(batch, torch.from_numpy(frames), self.model.special_token_id)
        return batch

    # --- state -----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the checkpoint; all processes must come here, the first one writes.

        The file is the same whatever the number of processes and the strategy.
        """
        with self.whole():
            state = self._state()
            if self.fabric.is_global_zero:
                meta = {"step": self.step, "config": asdict(self.config), "log": self.log}
                meta["world_size"] = self.fabric.world_size
                meta["scaler"] = self.fabric.strategy.precision.state_dict()
                checkpoint.save_checkpoint(folder / CHECKPOINT, state, meta)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, `model` can be used as it is, if only to look: all processes must come here."""
        with whole_weights(self._root):
            yield

    def close(self, failed: bool = False) -> None:
        """Make the model an ordinary one again; after a failure without what LoRA has learnt."""
        if hasattr(self, "_pool"):
            self._pool.shutdown(wait=True, cancel_futures=True)
        if hasattr(self, "_root") and not failed:  # a process that failed alone would wait for ever
            make_whole(self._root, *self._learners())
        for module in self._learners():
            module.zero_grad(set_to_none=True)
        if self._adapters is not None:
            self._adapters.remove() if failed else self._adapters.merge()

    def _state(self) -> dict[str, Tensor]:
        modules = checkpoint.pack("lm", self.model.lm.state_dict())
        if self.auxiliary is not None:
            modules |= checkpoint.pack("auxiliary", self.auxiliary.state_dict())
        moments = checkpoint.pack_optimizer("optimizer", self.optimizer)
        return {name: whole(value) for name, value in (modules | moments).items()}

    def _learners(self) -> list[nn.Module]:
        return [self.model.lm] + ([] if self.auxiliary is None else [self.auxiliary])

    def _wrap(self) -> None:
        config, fabric = self.config, self.fabric
        self._root = _Step(self.model, self.auxiliary, config.activation_checkpointing)
        self.module = fabric.setup_module(self._root)
        self._parameters = [
            p for module in self._learners() for p in module.parameters() if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=fabric.device.type in ("cpu", "cuda"),
        )
        self.fabric_optimizer = fabric.setup_optimizers(self.optimizer)

    # --- checks ----------------------------------------------------------------------------------

    def _rows(self) -> int:
        config, world = self.config, self.fabric.world_size
        rows = config.batch_size // (config.accumulation * world)
        if rows * config.accumulation * world != config.batch_size or rows < 1:
            raise StageLiteError(
                f"batch_size {config.batch_size} does not divide into {config.accumulation} "
                f"accumulation steps on {world} processes; expected a multiple of "
                f"{config.accumulation * world}"
            )
        return rows

    def _check_same_run(self, path: Path, meta: dict[str, Any]) -> None:
        own = asdict(self.config)
        for name, default in (("seed", 0), ("lora_rank", 0), ("lora_alpha", own["lora_alpha"])):
            saved = meta["config"].get(name, default)
            if saved != own[name]:
                raise StageLiteError(
                    f"{path} was made with {name.replace('_', ' ')} {saved}, this run has "
                    f"{own[name]}; give the same {name} or another checkpoint_dir"
                )
        before, now = meta.get("world_size", 1), self.fabric.world_size
        if before != now and self.fabric.is_global_zero:
            warnings.warn(
                f"{path} was made by {before} processes, this run has {now}: it sees the same "
                "windows and goes on equal within rounding, not bit for bit",
                stacklevel=5,
            )

    def _restore_weights(self, path: Path | None, tensors: dict[str, Tensor]) -> None:
        if path is None:
            return
        try:
            self.model.lm.load_state_dict(checkpoint.unpack("lm", tensors))
            if self.auxiliary is not None:
                self.auxiliary.load_state_dict(checkpoint.unpack("auxiliary", tensors))
        except (RuntimeError, ValueError) as error:
            raise _other_model(path, error) from None

    def _restore_optimizer(self, path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
        try:
            checkpoint.unpack_optimizer("optimizer", tensors, self.optimizer)
        except (RuntimeError, ValueError) as error:
            raise _other_model(path, error) from None
        for p, state in self.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    state[key] = part_of(value, p)
        if meta.get("scaler"):
            self.fabric.strategy.precision.load_state_dict(meta["scaler"])
        self.step, self.log = meta["step"], meta["log"]

    def _check_together(self) -> None:
        """All processes go on from the same step, or none does."""
        if self.fabric.world_size == 1:
            return
        first = self.fabric.broadcast(self.step)
        if first != self.step:
            raise StageLiteError(
                f"process {self.fabric.global_rank} goes on from step {self.step}, process 0 from "
                f"step {first}; expected one checkpoint_dir on a disk that all machines share"
            )

    def _check_memory(self, batch: Batch) -> None:
        self._checked_memory = True
        sharded = is_sharded(self.model.lm)
        needed = training_bytes(
            self.model.lm,
            batch.inputs.shape[0],
            batch.inputs.shape[2],
            half=self.config.precision != "32-true",
            recompute=self.config.activation_checkpointing,
            parts=self.fabric.world_size if sharded else 1,
        )
        check_training_memory(needed, self.fabric.device)


def _n_codes(batch: Batch) -> Tensor:
    """Codes of the target in each codebook, [K]."""
    return batch.prefix.loss_mask[:, :, batch.prefix.target_start :].sum((0, 2))


def _n_frames(model: StageModel, example: Example) -> int:
    if example.target_codes is not None:
        return example.target_codes.shape[-1]
    return round(example.duration_s * model.frame_rate)


def _other_model(path: Path, error: Exception) -> StageLiteError:
    return StageLiteError(
        f"{path} is of another model ({str(error).splitlines()[0]}); give another checkpoint_dir"
    )
