"""The loop that trains the small networks of stage_lite.metrics: seeded, resumable, safe to stop.

Batch `n` and the random numbers of step `n` depend on (seed, n) alone, and a checkpoint holds all
that changes, so that a run that was stopped and went on equals one that was not.
"""

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from markdown_table import table
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from stage_lite import checkpoint
from stage_lite.metrics.bootstrap import shown

WARMUP_STEPS, COOLDOWN = 100, 0.3  # COOLDOWN: share of the steps in which the rate falls to 0
PRECISIONS = ("bf16", "fp32")
SAME_RUN = ("seed", "batch_size", "precision", "learning_rate")  # what may not change on the way


class Batches(Protocol):
    def batch(self, step: int) -> Any: ...


def parser_for(doc: str, steps: int, batch_size: int) -> argparse.ArgumentParser:
    """The options that both scripts share."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of songs as stems")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this much time")
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of the encoder")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250, help="and validate")
    parser.add_argument("--test-windows", type=int, default=256, help="of the final test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def begin(args: argparse.Namespace) -> None:
    """What a script does first."""
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16")


def learning_rate(args: argparse.Namespace, step: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    late = (args.steps - step) / max(1.0, COOLDOWN * args.steps)
    return args.learning_rate * warm * min(1.0, late)


def train(
    args: argparse.Namespace,
    model: nn.Module,
    batches: Batches,
    losses_of: Callable[[Any, torch.Generator], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
) -> bool:
    """Train up to `args.steps`, from the checkpoint in `args.out` if there is one.

    Args:
        args: of `parser_for`.
        model: trained in place; in eval mode afterwards.
        batches: `batch(step)` gives what `losses_of` takes.
        losses_of: (batch, generator) -> named losses; those whose name begins with "_" are watched,
            the others are summed.
        validate: called in eval mode without gradients; its numbers are logged.

    Returns:
        Whether all steps are done.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    path, step = args.out / "checkpoint.safetensors", 0
    run = {name: getattr(args, name) for name in SAME_RUN}
    if path.exists():
        tensors, meta = checkpoint.load_checkpoint(path)
        other = {name: value for name, value in meta["run"].items() if run[name] != value}
        if other:
            raise SystemExit(f"{path} is of a run with {other}; go on with these, or delete it")
        model.load_state_dict(checkpoint.unpack("model", tensors))
        checkpoint.unpack_optimizer("optimizer", tensors, optimizer)
        step = meta["step"]
        print(f"going on at step {step}", flush=True)
    elif args.precision == "bf16":
        check_bf16(args, model, losses_of, batches.batch(0))

    def save() -> None:
        state = checkpoint.pack("model", model.state_dict())
        state |= checkpoint.pack_optimizer("optimizer", optimizer)
        checkpoint.save_checkpoint(path, state, {"step": step, "run": run})

    began, recent, saved = time.time(), [], step
    with (args.out / "log.jsonl").open("a") as log, _stop_after_the_step() as stop:
        while step < args.steps and not stop.asked and time.time() - began < args.seconds:
            model.train()
            parts = losses_of(batches.batch(step), _generator(args, step))
            optimizer.zero_grad(set_to_none=True)
            _total(parts).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, step)
            optimizer.step()
            step += 1
            recent.append({name: float(value.detach()) for name, value in parts.items()})
            row = {}
            if step % args.log_every == 0 or step == args.steps:
                row = {k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]}
                recent.clear()
            if step % args.save_every == 0 or step == args.steps:
                model.eval()
                with torch.no_grad():
                    row |= {k: round(v, 4) for k, v in validate().items()}
                save()
                saved = step
            if row:
                row = {"step": step, "seconds": round(time.time() - began, 1)} | row
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(row, flush=True)
        if step > saved:
            save()
    if step < args.steps:
        print(f"stopped at step {step}; the same command goes on from there", flush=True)
    model.eval()
    return step >= args.steps


def check_bf16(args: argparse.Namespace, model: nn.Module, losses_of: Callable, batch: Any) -> None:
    """Compare the gradients of one step: some CPU libraries get some bf16 convolutions wrong."""
    gradients = []
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for precision in PRECISIONS:
        args.precision = precision
        model.train().zero_grad(set_to_none=True)
        _total(losses_of(batch, _generator(args, 0))).backward()
        gradients.append([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.load_state_dict(state)  # batch norm has counted
    model.zero_grad(set_to_none=True)
    args.precision = "bf16"
    alike = float(cosine_similarity(*(torch.cat(g) for g in gradients), dim=0))
    if not alike > 0.9:
        raise SystemExit(
            f"bf16 gradients differ from fp32 ones (cosine similarity {alike:.2f}, expected above "
            "0.9): this CPU's bf16 convolutions are wrong; try --precision fp32"
        )
    print(f"bf16 gradients agree with fp32 ones: cosine similarity {alike:.3f}", flush=True)


class _Stop:
    asked = False


@contextmanager
def _stop_after_the_step() -> Iterator[_Stop]:
    """Ctrl-C and TERM wait for the end of the step, so that what is saved is whole; twice: now."""
    stop = _Stop()

    def handle(signum: int, frame: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        print("stopping after this step", flush=True)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def results_table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: each share with its interval, chance and n."""
    rows = [
        [name, shown(v), f"{v['chance']:.2f}", f"{v['n']} of {v['n_songs']}"]
        for name, v in results.items()
    ]
    return table(["", "share right", "chance", "windows of songs"], rows)


def _generator(args: argparse.Namespace, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(args.seed * 1_000_003 + step)


def _total(parts: dict[str, Tensor]) -> Tensor:
    return sum(value for name, value in parts.items() if not name.startswith("_"))


# --- what is done to spectra in training ----------------------------------------------------------


def recolour(spectra: Tensor, generator: torch.Generator) -> Tensor:
    """Another recording of the same notes: tilt, a resonance, a noise floor, drawn for each row.

    Takes away what stems of one song share without any musical reason, the room and the balance of
    the mix, and gets the network used to sounds whose quiet detail is gone, as codecs leave them.
    One unit of a spectrum is 20 dB.

    Args:
        spectra: Float[B, 2, F, T] of contrastive.Spectra.
        generator: draws.
    """
    n, _, bands, _ = spectra.shape
    draw = torch.rand(n, 5, 1, 1, 1, generator=generator)
    place = torch.linspace(-1, 1, bands)[:, None]
    tilt = 0.6 * (draw[:, 0] - 0.5) * place  # up to 6 dB at either end
    bump = 0.8 * (draw[:, 1] - 0.5) * torch.exp(-(((place - 2 * draw[:, 2] + 1) / 0.3) ** 2))
    floor = -1.5 + 0.8 * draw[:, 3]  # 1e-8 to 4e-7 of power
    scale = 2 * 2.302585  # natural logarithms of power
    return torch.logaddexp(scale * (spectra + tilt + bump), scale * floor) / scale


def transpose(spectra: Tensor, semitones: int, silence: float) -> Tensor:
    """Move Float[B, 2, F, T] up by so many semitones, which are its bands.

    By the same number for a whole batch: a shift leaves traces, as low notes are blurred where the
    bins of a spectrum are wider than a semitone, and traces would tell which rows belong together.
    """
    bands = spectra.shape[2]
    moved = torch.full_like(spectra, silence)
    moved[:, :, max(0, semitones) : bands + min(0, semitones)] = (
        spectra[:, :, max(0, -semitones) : bands - max(0, semitones)]
    )  # fmt: skip
    return moved


def draw_key(generator: torch.Generator) -> int:
    """Semitones from -4 to 4."""
    return int(torch.randint(-4, 5, (), generator=generator))
