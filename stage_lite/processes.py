"""One process or many: who takes part in a training run, and how weights are shared out.

    torchrun --nproc-per-node 2 -m stage_lite train --strategy ddp ...

`torchrun` comes with torch, starts the processes, and starts them all again when one has died
(`--max-restarts 3`); on several machines it runs on each with `--nnodes` and `--rdzv-endpoint`, and
there wants TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for restarts.
Every process holds a part of each batch:

    ddp    all weights in every process; gradients are averaged (torch's DistributedDataParallel)
    fsdp   weights, gradients and optimizer moments are cut into one part per process between the
           steps; during a step the weights are whole (torch's `fully_shard` over the whole model)

On CPUs they speak over gloo, on NVIDIA cards over nccl. Lightning Fabric does the talking.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn

from .errors import StageLiteError

STRATEGIES = ("ddp", "fsdp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def launch_fabric(
    device: str, precision: str, strategy: str | None = None, devices: int | None = None
) -> Any:
    """A launched lightning_fabric.Fabric for this process.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "32-true", "bf16-mixed" or, on GPUs, "16-mixed".
        strategy: "ddp" or "fsdp"; None is "ddp" where torchrun started several processes.
        devices: processes on this machine, if you want it checked; torchrun decides.

    Raises:
        StageLiteError: a strategy or a precision that is unknown or cannot be had here, several
            devices without torchrun, another number of them than torchrun started.
    """
    from lightning_fabric import Fabric

    check_precision(precision, device, strategy)
    started = torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started else 1
    world = int(os.environ.get("WORLD_SIZE", "1")) if started else 1
    _check_processes(strategy, devices, started, here)
    if world > 1 or strategy is not None:
        backend = _check_backend(device)
        if world == here:
            _meet(backend)
        chosen: Any = _sharded(world) if strategy == "fsdp" else _replicated()
    else:
        chosen = "auto"
    with _without_notices():
        fabric = Fabric(
            accelerator=device,
            devices=here,
            num_nodes=world // here,
            strategy=chosen,
            precision=precision,
        )
    fabric.launch()
    return fabric


@contextmanager
def _without_notices() -> Iterator[None]:
    """Without Fabric's notice of the precision that it was asked for; warnings still come."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_fabric(fabric: Any, strategy: str | None, devices: int | None) -> None:
    """Refuse a Fabric of the caller's own that training cannot use."""
    if strategy is not None or devices is not None:
        raise StageLiteError(
            f"got a fabric and besides it strategy {strategy!r} and devices {devices}; expected "
            "one or the other: the fabric has its own"
        )
    kind = type(fabric.strategy).__name__
    if kind in ("FSDPStrategy", "DeepSpeedStrategy"):
        raise StageLiteError(
            f"the fabric's strategy is Lightning's {kind}, whose parts are kept in its own way; "
            "expected one process or DDP; try strategy='fsdp' instead of a fabric"
        )


def is_first_process() -> bool:
    """Does this process speak for all? torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


def device_of_process(name: str | None = None) -> torch.device:
    """Where this process computes.

    Args:
        name: "cpu", "cuda" or "mps"; None is "cuda" where there is an NVIDIA card, else "cpu".
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = name or ("cuda" if there["cuda"] else "cpu")
    if not there.get(name, False):
        known = [known for known, is_there in there.items() if is_there]
        raise StageLiteError(
            f"device is {name!r}; expected one of {known}: this machine, or this build of torch, "
            "has no other"
        )
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0")) if name == "cuda" else None)


def check_precision(precision: str, device: str, strategy: str | None = None) -> None:
    """Refuse what this device cannot compute, before anything is loaded onto it."""
    if precision not in PRECISIONS:
        raise StageLiteError(f"precision is {precision!r}; expected one of {list(PRECISIONS)}")
    if precision == "16-mixed" and device == "cpu":
        raise StageLiteError(
            "precision is '16-mixed' on a CPU; expected '32-true' or 'bf16-mixed' there: fp16 "
            "needs a GPU"
        )
    if precision == "16-mixed" and strategy == "fsdp":
        raise StageLiteError(
            "precision is '16-mixed' with strategy 'fsdp'; expected 'bf16-mixed' or '32-true': "
            "gradients in parts cannot be rescaled one by one"
        )


def gather(values: Num[Tensor, " n"]) -> Num[Tensor, "world n"]:
    """The values of every process, one row each; all processes must come here."""
    world = torch.distributed.get_world_size() if _together() else 1
    rows = [torch.empty_like(values) for _ in range(world)]
    if world == 1:
        return values[None]
    torch.distributed.all_gather(rows, values)
    return torch.stack(rows)


def is_sharded(module: nn.Module) -> bool:
    """Are the module's weights cut into parts over the processes?"""
    return any(_in_parts(p) for p in module.parameters())


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Inside, every process holds all weights of the module; all processes must come here.

    Does nothing where weights are not shared out.
    """
    if not hasattr(module, "unshard"):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def make_whole(root: nn.Module, *modules: nn.Module) -> None:
    """Give `modules`, which `root` holds, ordinary parameters for good; `root` ends with that."""
    if not hasattr(root, "unshard"):
        return
    with whole_weights(root):
        copies = {
            (owner, name): p.detach().clone()
            for module in modules
            for owner in module.modules()
            for name, p in owner._parameters.items()
            if p is not None
        }
    for (owner, name), value in copies.items():
        requires_grad = owner._parameters[name].requires_grad
        owner._parameters[name] = nn.Parameter(value, requires_grad)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be one of several parts; all processes must come here."""
    if not _in_parts(tensor):
        return tensor
    full = tensor.full_tensor()
    return full.wait() if hasattr(full, "wait") else full  # gathering goes on in the background


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, cut as `like` is."""
    if not _in_parts(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _in_parts(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # torch's DTensor


def _replicated() -> Any:
    from lightning_fabric.strategies import DDPStrategy

    # A step in which no window has a text leaves the text's weights without gradient, as in one
    # process; and with this the order of sums never changes, so that restarts are bit-exact.
    return DDPStrategy(find_unused_parameters=True)


def _sharded(world: int) -> Any:
    from lightning_fabric.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    def shard(module: nn.Module, mesh: Any) -> nn.Module:
        # One part of the whole: the forward pass reads weights where they stand (lm.py), it does
        # not call the layers one by one, which is when torch would fetch theirs.
        return fully_shard(module, mesh=mesh["data_parallel"])

    return ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)


def _check_processes(strategy: str | None, devices: int | None, started: bool, here: int) -> None:
    if strategy is not None and strategy not in STRATEGIES:
        raise StageLiteError(
            f"strategy is {strategy!r}; expected one of {list(STRATEGIES)}, or None for one process"
        )
    if devices is not None and devices < 1:
        raise StageLiteError(f"devices is {devices}; expected at least 1")
    if not started and (strategy is not None or (devices or 1) > 1):
        raise StageLiteError(
            f"got strategy {strategy!r} and devices {devices} in a process that torchrun did not "
            f"start; expected `torchrun --nproc-per-node {max(2, devices or 2)} -m stage_lite "
            "train ...`, or a script of your own in place of `-m stage_lite train`"
        )
    if started and devices is not None and devices != here:
        raise StageLiteError(
            f"devices is {devices}, yet torchrun started {here} processes on this machine; "
            f"expected the same; try `torchrun --nproc-per-node {devices}`"
        )


def _meet(backend: str) -> None:
    """Join the processes of this machine, apart from those that torchrun started before them.

    torchrun keeps one store of addresses for all lives of a run (pytorch issue 135712): a process
    that comes back a moment earlier than the others would read where they had been.
    """
    distributed, environment = torch.distributed, os.environ
    if distributed.is_initialized() or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # Fabric joins them
    world = int(environment["WORLD_SIZE"])
    store = distributed.TCPStore(
        environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), world, is_master=False
    )
    life = distributed.PrefixStore(f"life-{environment['TORCHELASTIC_RESTART_COUNT']}", store)
    distributed.init_process_group(
        backend, store=life, rank=int(environment["RANK"]), world_size=world
    )
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_backend(device: str) -> str:
    """The name of what the processes speak over."""
    there = {
        "cpu": ("gloo", torch.distributed.is_gloo_available),
        "cuda": ("nccl", torch.distributed.is_nccl_available),
    }
    if device not in there:
        raise StageLiteError(
            f"several processes on a device of type {device!r}; expected 'cpu' or 'cuda': try one "
            "process, or model.to('cpu')"
        )
    name, is_available = there[device]
    if not is_available():
        raise StageLiteError(
            f"this build of torch has no {name}, over which processes on {device} would speak; "
            "expected one that has; try one process, or the build from pytorch.org"
        )
    return name
