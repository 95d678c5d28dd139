"""Fine-tuning: exact resume, what is dropped and hidden, what reaches the loss."""

import json

import numpy as np
import pytest
import torch
from conftest import make_tiny_model

from stage_lite.batch import delay_history, hide_history, make_batch
from stage_lite.checkpoint import load_checkpoint, save_checkpoint
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.listening import code_losses, context_losses
from stage_lite.lm import forward
from stage_lite.training import TrainingConfig, finetune


def example(i: int, context: bool = True, n_frames: int = 12) -> Example:
    draw = torch.Generator().manual_seed(i)
    codes = torch.randint(0, 16, (2, 4, n_frames), generator=draw)
    return Example(
        target=None,
        context=None,
        description="drums, rock" if i % 2 else "bass",
        beat_times=np.zeros(0),
        downbeat_times=np.zeros(0),
        song_id=f"song{i % 5}",
        start_s=0.0,
        duration_s=n_frames / 50,
        condition="mix",
        context_codes=codes[0, :, : 6 + i % 7] if context else None,
        target_codes=codes[1],
    )


DATA = [example(i) for i in range(20)]
SETTINGS = dict(
    batch_size=4, warmup_steps=2, history_dropout=0.5, spread_positions=True, save_every=1000
)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.lm.parameters()])


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = make_tiny_model(context_token=False, trained_s=0.5)
    finetune(whole, DATA, steps=6, progress=False, **SETTINGS)

    def stop_after_three(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    first = make_tiny_model(context_token=False, trained_s=0.5)
    run = finetune(
        first, DATA, steps=6, checkpoint_dir=tmp_path, progress=False,
        on_step=stop_after_three, **SETTINGS,
    )  # fmt: skip
    assert run.interrupted and run.step == 3
    again = make_tiny_model(context_token=False, trained_s=0.5, seed=7)  # other weights: replaced
    run = finetune(again, DATA, steps=6, checkpoint_dir=tmp_path, progress=False, **SETTINGS)
    assert run.step == 6 and not run.interrupted
    assert torch.equal(weights(whole), weights(again))


def test_training_lowers_the_loss_and_leaves_the_codec_alone():
    model = make_tiny_model(trained_s=0.5)
    codec = {k: v.clone() for k, v in model.codec.state_dict().items()}
    before = float(model.loss(DATA[:4])[0].detach())
    finetune(model, DATA[:4], steps=30, progress=False, batch_size=4, learning_rate=3e-3)
    assert float(model.loss(DATA[:4])[0].detach()) < before - 0.5
    assert all(torch.equal(v, codec[k]) for k, v in model.codec.state_dict().items())


def test_mixed_precision_trains_too():
    model = make_tiny_model()
    run = finetune(model, DATA, steps=2, progress=False, batch_size=4, precision="bf16-mixed")
    assert run.step == 2 and all(p.dtype == torch.float32 for p in model.lm.parameters())


def test_accumulation_equals_one_large_batch():
    one, two = make_tiny_model(), make_tiny_model()
    finetune(one, DATA, steps=2, progress=False, batch_size=4)
    finetune(two, DATA, steps=2, progress=False, batch_size=4, accumulation=2)
    assert torch.allclose(weights(one), weights(two), atol=1e-5)


def test_the_token_is_added_only_for_contexts():
    with_context, without = (make_tiny_model(context_token=False) for _ in range(2))
    finetune(with_context, DATA, steps=1, progress=False, batch_size=2)
    plain = [example(i, context=False) for i in range(8)]
    finetune(without, plain, steps=1, progress=False, batch_size=2)
    assert with_context.lm.emb[0].weight.shape[0] == 18
    assert without.lm.emb[0].weight.shape[0] == 17


def test_hidden_history_changes_inputs_of_the_target_only():
    model = make_tiny_model()
    batch = make_batch(model, DATA[:3])
    hidden = hide_history(batch, torch.ones_like(batch.prefix.attention_mask), 16)
    changed = hidden.inputs != batch.inputs
    assert torch.equal(changed, batch.prefix.loss_mask & changed) and changed.any()
    assert (hidden.inputs[batch.prefix.loss_mask] == 16).all()
    assert torch.equal(hidden.prefix.sequence, batch.prefix.sequence)  # labels


def test_a_late_history_is_the_same_codes_later():
    model = make_tiny_model()
    batch = make_batch(model, DATA[:3])
    late = delay_history(batch, torch.tensor([0, 3, 99]), 16)
    first, n_frames = batch.prefix.target_start, batch.prefix.n_target_frames
    for k in range(4):
        true, read = (
            x[:, k, first + k : first + k + n_frames] for x in (batch.inputs, late.inputs)
        )
        assert torch.equal(read[0], true[0])
        assert torch.equal(read[1, 3:], true[1, :-3]) and (read[1, :3] == 16).all()
        assert (read[2] == 16).all()  # later than the target is long: nothing is read
    assert torch.equal(late.inputs[..., :first], batch.inputs[..., :first])
    assert torch.equal(late.prefix.sequence, batch.prefix.sequence)  # labels


def test_a_run_with_late_histories_resumes_to_the_same_bits(tmp_path):
    settings = SETTINGS | {"history_delay": 0.7, "longest_delay_s": 0.1}
    whole, first = (make_tiny_model(trained_s=0.5) for _ in range(2))
    finetune(whole, DATA, steps=4, progress=False, **settings)
    plain = make_tiny_model(trained_s=0.5)
    finetune(plain, DATA, steps=4, progress=False, **SETTINGS)
    finetune(first, DATA, steps=2, checkpoint_dir=tmp_path, progress=False, **settings)
    finetune(first, DATA, steps=4, checkpoint_dir=tmp_path, progress=False, **settings)
    assert torch.equal(weights(whole), weights(first))
    assert not torch.equal(weights(whole), weights(plain))


class Parity(torch.nn.Module):
    """Something else to learn: is the description that of drums?"""

    def __init__(self, dim: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.out = torch.nn.Linear(dim, 1)

    def forward(self, hidden, batch):
        drums = torch.tensor([[float("drums" in e.description)] for e in batch.examples])
        return torch.nn.functional.binary_cross_entropy_with_logits(
            self.out(hidden[:, -1].float()), drums
        )


def test_an_auxiliary_loss_is_trained_and_resumed_and_stays_out_of_the_log(tmp_path):
    models = [make_tiny_model(trained_s=0.5) for _ in range(3)]
    heads = [Parity(models[0].config.lm.dim) for _ in range(2)]
    start = heads[0].out.weight.detach().clone()
    run = finetune(models[0], DATA, steps=1, progress=False, auxiliary=heads[0], **SETTINGS)
    plain = finetune(models[2], DATA, steps=1, progress=False, **SETTINGS)
    assert run.log[0]["loss"] == plain.log[0]["loss"]
    finetune(models[2], DATA, steps=4, progress=False, **SETTINGS)

    whole, parts = make_tiny_model(trained_s=0.5), make_tiny_model(trained_s=0.5)
    heads = [Parity(whole.config.lm.dim) for _ in range(3)]
    finetune(whole, DATA, steps=4, progress=False, auxiliary=heads[0], **SETTINGS)
    for steps, head in ((2, heads[1]), (4, heads[2])):  # the third head gets the second's state
        finetune(parts, DATA, steps=steps, checkpoint_dir=tmp_path, progress=False,
                 auxiliary=head, **SETTINGS)  # fmt: skip
    assert torch.equal(weights(whole), weights(parts))
    assert torch.equal(heads[0].out.weight, heads[2].out.weight)
    assert not torch.equal(heads[0].out.weight, start)
    assert not torch.equal(weights(whole), weights(models[2]))


def test_code_losses_mean_is_the_prefix_loss():
    model = make_tiny_model()
    batch = make_batch(model, DATA[:3])
    losses = code_losses(model, batch)  # [B, T, K]
    assert losses.shape == (3, 12, 4)
    expected, per_codebook = model.loss(DATA[:3])
    assert torch.allclose(losses.mean((0, 1)), per_codebook, atol=1e-5)
    assert torch.allclose(losses.mean(), expected, atol=1e-5)


def test_context_losses_of_an_untrained_model_show_no_gap():
    losses = context_losses(make_tiny_model(), DATA)
    assert abs(losses["gap"]) < 0.3
    assert losses["gap"] == pytest.approx(losses["shuffled"] - losses["right"])


def test_dropping_everything_equals_plain_text_free_music():
    model = make_tiny_model()
    gone = torch.ones(3, dtype=torch.bool)
    dropped = make_batch(model, DATA[:3], context_dropped=gone, text_dropped=gone)
    plain = [example(i, context=False) for i in range(3)]
    for e in plain:
        e.description = ""
    a, b = code_losses(model, dropped), code_losses(model, make_batch(model, plain))
    assert torch.allclose(a, b, atol=1e-5)


def test_a_checkpoint_of_another_seed_or_model_is_refused(tmp_path):
    finetune(
        make_tiny_model(), DATA, steps=1, checkpoint_dir=tmp_path, progress=False, batch_size=2
    )
    with pytest.raises(StageLiteError, match="seed 0"):
        finetune(
            make_tiny_model(),
            DATA,
            steps=2,
            checkpoint_dir=tmp_path,
            progress=False,
            batch_size=2,
            seed=1,
        )
    with pytest.raises(StageLiteError, match="holds a checkpoint"):
        finetune(
            make_tiny_model(), DATA, steps=2, checkpoint_dir=tmp_path, progress=False, resume=False
        )


def test_a_checkpoint_cut_in_half_is_named(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, {"a": torch.zeros(1000)}, {"step": 1})
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(StageLiteError, match="no whole checkpoint"):
        load_checkpoint(file)


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, {"a": torch.zeros(3)}, {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(file, {"a": torch.zeros(3)}, {"step": object()})
    assert load_checkpoint(file)[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    model = make_tiny_model()
    with torch.no_grad():
        model.lm.linears[0].weight.fill_(float("nan"))
    with pytest.raises(StageLiteError, match="last checkpoint is kept"):
        finetune(model, DATA, steps=1, progress=False, batch_size=2)


def test_settings_are_checked():
    with pytest.raises(StageLiteError, match="unknown settings"):
        finetune(make_tiny_model(), DATA, steps=1, learning_rat=1.0)
    with pytest.raises(StageLiteError, match="does not divide"):
        finetune(make_tiny_model(), DATA, steps=1, batch_size=3, accumulation=2)
    with pytest.raises(StageLiteError, match="at least 1"):
        finetune(make_tiny_model(), [], steps=1)
    assert TrainingConfig().context_dropout == 0.1


def test_the_log_is_json_lines_with_validation(tmp_path):
    run = finetune(
        make_tiny_model(), DATA, steps=2, checkpoint_dir=tmp_path, progress=False, batch_size=2,
        validation=DATA[:10], validate_every=1, log_every=1,
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all("valid_gap_hidden" in row for row in rows) and rows == run.log
    assert len(run.history()) == 3


def test_the_log_tells_the_full_learning_rate_to_the_end_of_a_run_that_does_not_cool_down():
    settings = {"progress": False, "batch_size": 4, "warmup_steps": 2, "learning_rate": 1e-3}
    run = finetune(make_tiny_model(), DATA, steps=4, log_every=1, **settings)
    assert [row["lr"] for row in run.log] == [1e-3] * 4  # each row tells the next step's


def test_attention_written_out_for_training_equals_the_fused_kernel():
    model = make_tiny_model()
    sequence = torch.randint(0, 16, (2, 4, 30), generator=torch.Generator().manual_seed(0))
    with_grad = forward(model.lm, sequence)
    with torch.no_grad():
        without = forward(model.lm, sequence)
    assert with_grad.requires_grad and torch.allclose(with_grad, without, atol=1e-5)


def test_a_run_does_not_announce_the_precision_it_was_asked_for(caplog):
    from stage_lite.processes import launch_fabric

    with caplog.at_level("INFO"):
        launch_fabric("cpu", "bf16-mixed")
    assert not [record for record in caplog.records if "Precision" in record.getMessage()]
