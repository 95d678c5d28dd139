"""Training past one process and past one's memory: equal to the plain way, or refused in words."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import distributed_run
import pytest
import torch
from conftest import make_tiny_model
from safetensors.torch import load_file
from songs import own_song
from test_training import DATA, example, weights

import stage_lite as sl
from stage_lite import memory
from stage_lite.batch import make_batch
from stage_lite.errors import StageLiteError
from stage_lite.interrupts import Interrupts
from stage_lite.lm import forward
from stage_lite.lora import Adapters
from stage_lite.processes import device_of_process, launch_fabric, make_whole, part_of, whole
from stage_lite.training import finetune

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="LoRA needs peft, which is not installed"
)
needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this build of torch has no gloo, over which processes on CPUs speak",
)
MIXED = distributed_run.DATA[:12]  # windows and texts of several lengths


# --- several processes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two processes under torchrun, one of which is killed once; then one process, here."""
    folder = tmp_path_factory.mktemp("trained")
    names = ["killed", "ddp", "accumulation", "fsdp", "fsdp_resumed", "interrupted", "command"]
    for number in range(2):
        own_song(folder / "songs", number, seconds=2.0)
    make_tiny_model(trained_s=1.0).save(folder / "base")
    if importlib.util.find_spec("peft"):
        names.append("lora_fsdp")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "--max-restarts", "1", distributed_run.__file__, folder, *names],
        capture_output=True, text=True, timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "said.txt").write_text(done.stdout)
    for name in ("plain", "lora") if "lora_fsdp" in names else ("plain",):
        distributed_run.run(folder, name)
    return folder


def losses_of(folder: Path, name: str) -> list[float]:
    return json.loads((folder / f"{name}.json").read_text())


def distance(folder: Path, one: str, other: str) -> float:
    """The largest difference between two trained models' weights."""
    a, b = (load_file(folder / f"{name}.safetensors") for name in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize(
    ("two", "one"),
    [
        ("ddp", "plain"),
        ("accumulation", "plain"),
        ("fsdp", "plain"),
        pytest.param("lora_fsdp", "lora", marks=needs_peft),
    ],
)
def test_two_processes_give_the_losses_of_one(trained, two, one):
    assert len(losses_of(trained, two)) == distributed_run.STEPS
    assert losses_of(trained, two) == pytest.approx(losses_of(trained, one), abs=1e-4)
    assert distance(trained, two, one) < 1e-3  # AdamW's first steps have the size of lr = 3e-4


@needs_gloo
@pytest.mark.slow
def test_a_killed_process_changes_no_bit(trained):
    assert len(losses_of(trained, "killed")) == 2  # steps 5 and 6, after the checkpoint of step 4
    assert distance(trained, "killed", "ddp") == 0
    assert losses_of(trained, "killed") == losses_of(trained, "ddp")[4:]
    logs = [(trained / name / "log.jsonl").read_text().splitlines() for name in ("killed", "ddp")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps == [[1, 2, 3, 4, 5, 6]] * 2  # step 5 came twice and is written once


@needs_gloo
@pytest.mark.slow
def test_sharded_training_resumes_to_the_same_bits_and_validates(trained):
    assert distance(trained, "fsdp_resumed", "fsdp") == 0
    last = json.loads((trained / "fsdp" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6 and "valid_gap_hidden" in last


@needs_gloo
@pytest.mark.slow
def test_ctrl_c_in_one_process_stops_all_after_the_same_step(trained):
    assert "stopped at step 4 of 6" in (trained / "said.txt").read_text()
    assert losses_of(trained, "interrupted") == losses_of(trained, "fsdp")
    assert distance(trained, "interrupted", "fsdp") == 0


@needs_gloo
@pytest.mark.slow
def test_the_command_trains_in_two_processes_and_speaks_once(trained):
    said = (trained / "said.txt").read_text()
    assert said.count("2 steps; stage-lite generate --model") == 1
    assert said.count("none held out") == 1
    model = sl.load(trained / "command" / "model")
    assert model.config.name == "command"
    base = sl.load(trained / "base")
    assert not torch.equal(weights(model), weights(base))


@needs_gloo
@pytest.mark.slow
def test_a_checkpoint_serves_any_number_of_processes_and_says_so(trained):
    resumed = []
    for name in ("ddp", "fsdp", "plain"):
        model = make_tiny_model(context_token=False, trained_s=0.5)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            finetune(model, distributed_run.DATA, steps=7, checkpoint_dir=trained / name,
                     progress=False, **distributed_run.SETTINGS)  # fmt: skip
        told = any("made by 2 processes, this run has 1" in str(w.message) for w in said)
        assert told == (name != "plain")
        resumed.append(weights(model))
    assert torch.allclose(resumed[0], resumed[2], atol=1e-3)
    assert torch.allclose(resumed[1], resumed[2], atol=1e-3)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"strategy": "ddp"}, "did not start; expected `torchrun --nproc-per-node 2"),
        ({"devices": 4}, "torchrun --nproc-per-node 4"),
        ({"devices": 0}, "devices is 0; expected at least 1"),
        ({"strategy": "horovod"}, r"strategy is 'horovod'; expected one of \['ddp', 'fsdp'\]"),
        ({"precision": "16-mixed"}, "on a CPU; expected '32-true' or 'bf16-mixed'"),
        ({"precision": "fp8"}, "precision is 'fp8'; expected one of"),
        ({"batch_size": 3, "accumulation": 2}, "expected a multiple of 2"),
        ({"batch_size": 2, "accumulation": 4}, "does not divide into 4"),
    ],
)
def test_what_cannot_be_had_is_refused(wish, message):
    with pytest.raises(StageLiteError, match=message):
        finetune(make_tiny_model(), DATA, steps=1, progress=False, **wish)


def started_by_torchrun(monkeypatch, processes: int) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": processes,
                        "WORLD_SIZE": processes, "RANK": 0, "LOCAL_RANK": 0}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))


def test_a_build_without_gloo_is_named(monkeypatch):
    started_by_torchrun(monkeypatch, 2)
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    with pytest.raises(StageLiteError, match="this build of torch has no gloo"):
        launch_fabric("cpu", "32-true")
    with pytest.raises(StageLiteError, match="device of type 'mps'; expected 'cpu' or 'cuda'"):
        launch_fabric("mps", "32-true")


def test_another_number_of_devices_than_torchrun_started_is_named(monkeypatch):
    started_by_torchrun(monkeypatch, 2)
    with pytest.raises(StageLiteError, match="devices is 4, yet torchrun started 2 processes"):
        launch_fabric("cpu", "32-true", devices=4)
    with pytest.raises(StageLiteError, match="16-mixed' with strategy 'fsdp'"):
        launch_fabric("cuda", "16-mixed", "fsdp")


def test_a_device_that_is_not_there_is_named():
    assert device_of_process("cpu") == torch.device("cpu")
    with pytest.raises(StageLiteError, match="device is 'tpu'; expected one of .'cpu'"):
        device_of_process("tpu")


def test_a_fabric_of_ones_own():
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import FSDPStrategy

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    own, plain = make_tiny_model(), make_tiny_model()
    finetune(own, DATA, steps=2, progress=False, batch_size=4, fabric=fabric)
    finetune(plain, DATA, steps=2, progress=False, batch_size=4)
    assert torch.equal(weights(own), weights(plain))
    with pytest.raises(StageLiteError, match="expected one or the other"):
        finetune(own, DATA, steps=3, progress=False, fabric=fabric, devices=2)
    sharded = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(StageLiteError, match="try strategy='fsdp' instead of a fabric"):
        finetune(own, DATA, steps=3, progress=False, fabric=sharded)


def test_whole_tensors_stay_as_they_are():
    x = torch.arange(4.0)
    assert whole(x) is x and part_of(x, like=x) is x
    layer = torch.nn.Linear(2, 2)
    before = layer.weight
    make_whole(torch.nn.Sequential(layer), layer)
    assert layer.weight is before


# --- one process, less memory --------------------------------------------------------------------


def test_accumulation_equals_one_large_batch_of_windows_of_any_length():
    settings = {"batch_size": 6, "history_dropout": 0.8, "history_delay": 0.5, "text_dropout": 0.5}
    one, three = make_tiny_model(trained_s=0.5), make_tiny_model(trained_s=0.5)
    runs = [
        finetune(model, MIXED, steps=3, progress=False, log_every=1, accumulation=n, **settings)
        for model, n in ((one, 1), (three, 3))
    ]
    for row, other in zip(runs[0].log, runs[1].log, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)
    assert torch.allclose(weights(one), weights(three), atol=2e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_activation_checkpointing_changes_no_bit(precision):
    plain, thrifty = make_tiny_model(), make_tiny_model()
    for model, recompute in ((plain, False), (thrifty, True)):
        finetune(model, MIXED, steps=3, progress=False, batch_size=4, precision=precision,
                 activation_checkpointing=recompute)  # fmt: skip
    assert torch.equal(weights(plain), weights(thrifty))


def saved_bytes(model, batch, recompute: bool) -> int:
    """Bytes of the different tensors that the forward pass keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.lm.parameters()}
    kept = {}

    def note(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        prefix = batch.prefix
        forward(model.lm, batch.inputs, prefix.attention_mask, prefix.positions,
                first_step=prefix.target_start - 1, recompute=recompute)  # fmt: skip
    return sum(x.untyped_storage().nbytes() for x in kept.values())


def test_the_memory_that_is_foreseen_is_what_is_kept():
    model = make_tiny_model()
    batch = make_batch(model, [example(i, n_frames=60) for i in range(4)])
    rows, n_steps = batch.inputs.shape[0], batch.inputs.shape[2]
    for p in model.lm.parameters():
        p.requires_grad_(True)
    fixed = 12 * sum(p.numel() for p in model.lm.parameters())
    plain = memory.training_bytes(model.lm, rows, n_steps)
    thrifty = memory.training_bytes(model.lm, rows, n_steps, recompute=True)
    kept = saved_bytes(model, batch, False)
    assert 0.4 * kept < plain - fixed < 1.1 * kept
    assert saved_bytes(model, batch, True) < 0.5 * kept and thrifty < plain
    assert memory.training_bytes(model.lm, rows, n_steps, parts=4) == plain - fixed + fixed // 4
    assert memory.training_bytes(model.lm, rows, n_steps, half=True) < plain


def test_too_little_memory_is_said_before_the_first_step(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    model = make_tiny_model()
    before = weights(model)
    with pytest.raises(
        StageLiteError,
        match="a training step, beside the weights, needs .* of memory, 0.0 MB are free",
    ):
        finetune(model, DATA, steps=1, progress=False, batch_size=2)
    assert torch.equal(weights(model), before)


def test_fewer_windows_than_a_step_takes_are_mentioned():
    with pytest.warns(UserWarning, match="has 3 windows, a step takes 4"):
        finetune(make_tiny_model(), DATA[:3], steps=1, progress=False, batch_size=4)


class Steep(torch.nn.Module):
    """A finite loss whose gradient is not."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(1))

    def forward(self, hidden, batch):
        return self.x.sqrt().sum()


def test_gradients_that_are_not_finite_stop_with_a_sentence():
    model = make_tiny_model()
    before = weights(model)
    with pytest.raises(StageLiteError, match="gradients are not finite at step 0"):
        finetune(model, DATA, steps=1, progress=False, batch_size=2, auxiliary=Steep())
    assert torch.equal(weights(model), before)


# --- LoRA ----------------------------------------------------------------------------------------


@needs_peft
def test_lora_starts_as_nothing_and_merges_into_ordinary_weights():
    model = make_tiny_model()
    batch = make_batch(model, DATA[:3])
    text = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(1))

    def logits():
        with torch.no_grad():
            prefix = batch.prefix
            return forward(model.lm, batch.inputs, prefix.attention_mask, prefix.positions, text)

    names, before = set(model.lm.state_dict()), logits()
    adapters = Adapters(model.lm, rank=2, alpha=4.0)
    assert torch.allclose(logits(), before, atol=1e-6)
    learned = {n for n, p in model.lm.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.startswith("emb.") for n in learned)
    n_matrices = 6 * 2  # in and out of both attentions, up, down; two layers
    assert sum("lora_A" in n for n in learned) == sum("lora_B" in n for n in learned) == n_matrices
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.lm.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    adapted = logits()
    assert not torch.allclose(adapted, before, atol=1e-2)
    adapters.merge()
    assert set(model.lm.state_dict()) == names
    assert all(p.requires_grad for p in model.lm.parameters())
    assert torch.allclose(logits(), adapted, atol=1e-4)


@needs_peft
def test_lora_trains_saves_and_resumes_to_the_same_bits(tmp_path):
    settings = {"batch_size": 4, "lora_rank": 2, "learning_rate": 1e-2, "progress": False}
    whole_run, parts = make_tiny_model(context_token=False), make_tiny_model(context_token=False)
    start = {k: v.clone() for k, v in whole_run.lm.state_dict().items()}
    run = finetune(whole_run, DATA, steps=6, log_every=1, **settings)
    assert run.log[-1]["loss"] < run.log[0]["loss"]
    finetune(parts, DATA, steps=3, checkpoint_dir=tmp_path / "run", **settings)
    finetune(parts, DATA, steps=6, checkpoint_dir=tmp_path / "run", **settings)  # merged before
    assert torch.equal(weights(whole_run), weights(parts))
    end = parts.lm.state_dict()
    moved = {k for k, v in end.items() if v.shape != start[k].shape or (v != start[k]).any()}
    assert any("in_proj" in k for k in moved) and any("linear1" in k for k in moved)
    assert not any("norm" in k or k.startswith("linears") for k in moved)
    parts.save(tmp_path / "model")
    again = sl.load(tmp_path / "model")
    assert torch.equal(weights(again), weights(parts))
    with pytest.raises(StageLiteError, match="made with lora rank 2, this run has 0"):
        finetune(parts, DATA, steps=7, checkpoint_dir=tmp_path / "run", batch_size=4)


@needs_peft
def test_after_a_failure_the_model_is_what_it_was():
    model = make_tiny_model()
    with torch.no_grad():
        model.lm.linears[0].weight.fill_(float("nan"))
    names = set(model.lm.state_dict())
    with pytest.raises(StageLiteError, match="last checkpoint is kept"):
        finetune(model, DATA, steps=1, progress=False, batch_size=2, lora_rank=2)
    assert set(model.lm.state_dict()) == names


def test_lora_without_peft_says_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a)
    )
    with pytest.raises(StageLiteError, match="pip install peft"):
        finetune(make_tiny_model(), DATA, steps=1, progress=False, batch_size=2, lora_rank=2)
    with pytest.raises(StageLiteError, match="lora_rank is -1"):
        finetune(make_tiny_model(), DATA, steps=1, progress=False, batch_size=2, lora_rank=-1)


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_an_interrupt_waits_while_it_is_held_and_comes_at_once_elsewhere():
    interrupts, done = Interrupts(together=False), []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the weights moved as a whole")
        done.append("too far")
    assert done == ["the weights moved as a whole"]
    again = Interrupts(together=False)
    with pytest.raises(KeyboardInterrupt), again.listening():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_among_several_processes_an_interrupt_is_only_noted():
    interrupts = Interrupts(together=True)
    with interrupts.listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.asked


def test_ctrl_c_in_the_optimizer_resumes_to_the_same_bits(tmp_path, monkeypatch):
    settings = {"batch_size": 4, "history_dropout": 0.5, "progress": False}
    whole_run, parts = make_tiny_model(), make_tiny_model()
    finetune(whole_run, DATA, steps=4, **settings)
    step, count = torch.optim.AdamW.step, []

    def interrupted(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGINT)  # after the weights moved, before it is counted
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    run = finetune(parts, DATA, steps=4, checkpoint_dir=tmp_path, **settings)
    assert run.interrupted and run.step == 2
    run = finetune(parts, DATA, steps=4, checkpoint_dir=tmp_path, **settings)
    assert run.step == 4 and torch.equal(weights(whole_run), weights(parts))
