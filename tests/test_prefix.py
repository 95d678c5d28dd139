"""[context | context token | target]: the layout, what carries loss, and the added row."""

import pytest
import torch
import torch.nn.functional as F

from stage_lite.delay import delay, undelay
from stage_lite.errors import StageLiteError
from stage_lite.lm import forward
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.prefix import ALIGNED, build_prefix, extend_embedding, has_context_row, prefix_loss

CARD, N_Q = 16, 4
IDS = {"special_token_id": CARD, "context_token_id": CARD + 1}


def codes(*shape, seed=0):
    return torch.randint(0, CARD, shape, generator=torch.Generator().manual_seed(seed))


def tiny_lm(context_token=True, seed=0, **sizes):
    sizes = {"card": CARD, "n_q": N_Q, "dim": 32, "num_layers": 2, "num_heads": 2} | sizes
    return build_lm(LMConfig(context_token=context_token, word_dim=8, **sizes), seed=seed)


def run(lm, prefix, **options):
    return forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions, **options)


def test_layout_is_as_drawn():
    a, b, c, s = 7, 8, CARD + 1, CARD
    context = [torch.tensor([[a, b]] * 2), torch.tensor([[a]] * 2)]
    prefix = build_prefix(context, torch.tensor([[[1, 2]] * 2] * 2), **IDS)
    assert prefix.sequence.tolist() == [
        [[s, a, b, c, 1, 2, s], [s, s, a, b, c, 1, 2]],
        [[s, s, a, c, 1, 2, s], [s, s, s, a, c, 1, 2]],
    ]
    assert prefix.attention_mask.int().tolist() == [[1] * 7, [0] + [1] * 6]
    assert prefix.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 3, 4, 5]]
    assert prefix.loss_mask.int().tolist() == [[[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1]]] * 2
    assert (prefix.target_start, prefix.n_target_frames) == (4, 2)


def test_no_context_is_the_delayed_target():
    target = codes(2, N_Q, 5)
    prefix = build_prefix(None, target, **IDS)
    assert torch.equal(prefix.sequence, delay(target, CARD))
    assert prefix.attention_mask.all()
    assert prefix.positions.tolist() == [list(range(9))] * 2
    assert prefix.target_start == 1
    assert torch.equal(prefix.loss_mask, prefix.sequence != CARD)


def test_the_token_is_one_step_in_all_codebooks_and_all_is_delayed():
    context, target = codes(1, N_Q, 6), codes(1, N_Q, 5, seed=1)
    prefix = build_prefix(context, target, **IDS)
    frames = undelay(prefix.sequence, CARD)
    token = torch.full((1, N_Q, 1), CARD + 1)
    assert torch.equal(frames, torch.cat([context, token, target], dim=2))


@pytest.mark.parametrize("how", ["None", "dropped"])
def test_dropped_context_equals_no_context(how):
    lm, target = tiny_lm(), codes(2, N_Q, 5)
    if how == "None":
        prefix = build_prefix([codes(N_Q, 6, seed=1), None], target, **IDS)
    else:
        dropped = torch.tensor([False, True])
        prefix = build_prefix(codes(2, N_Q, 6, seed=1), target, **IDS, context_dropped=dropped)
    assert CARD + 1 not in prefix.sequence[1]
    plain = build_prefix(None, target[1:], **IDS)
    n_steps = plain.sequence.shape[2]
    assert torch.equal(prefix.sequence[1:, :, -n_steps:], plain.sequence)
    assert torch.equal(prefix.positions[1:, -n_steps:], plain.positions)
    there = run(lm, prefix)[1:, :, -n_steps:]
    torch.testing.assert_close(there, run(lm, plain), rtol=0, atol=1e-5)


def test_left_padding_does_not_change_logits():
    lm, lengths = tiny_lm(), [7, 3, 0, 5]
    contexts = [codes(N_Q, n, seed=n) for n in lengths]
    target = codes(4, N_Q, 5)
    prefix = build_prefix(contexts, target, **IDS)
    together = run(lm, prefix)
    dense = run(lm, prefix, need_attention=True)[0]  # the same with a mask, step by step
    for b in range(4):
        alone = build_prefix([contexts[b]], target[b : b + 1], **IDS)
        n_steps = alone.sequence.shape[2]
        expected = run(lm, alone)[0]
        for logits in (together, dense):
            torch.testing.assert_close(logits[b, :, -n_steps:], expected, rtol=0, atol=1e-5)


def test_anchored_positions():
    contexts = [codes(N_Q, 7), codes(N_Q, 3), None, codes(N_Q, 9)]
    target = codes(4, N_Q, 5)
    stage = build_prefix(contexts, target, **IDS)
    anchored = build_prefix(contexts, target, **IDS, anchor_frames=9)
    token = stage.target_start - 1  # codebook 0
    assert anchored.positions[:, token].tolist() == [10, 10, 0, 10]
    assert anchored.positions[0, 2 : 2 + 8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    # no context: MusicGen's positions; a context of anchor_frames: STAGE's
    assert torch.equal(anchored.positions[2:], stage.positions[2:])
    assert (anchored.positions[:, -1] == torch.tensor([18, 18, 8, 18])).all()
    assert torch.equal(anchored.sequence, stage.sequence)


def test_position_offset_moves_whole_rows():
    target, context = codes(2, N_Q, 5), codes(2, N_Q, 3)
    offset = torch.tensor([0, 100])
    moved = build_prefix(context, target, **IDS, position_offset=offset)
    plain = build_prefix(context, target, **IDS)
    assert torch.equal(moved.positions, plain.positions + offset[:, None])


def test_loss_is_the_mean_over_codebooks_of_target_codes():
    lm, context, target = tiny_lm(), codes(2, N_Q, 6), codes(2, N_Q, 5, seed=1)
    target[0, 1, 2:] = CARD  # unknown
    prefix = build_prefix(context, target, **IDS)
    logits = run(lm, prefix)
    loss, per_codebook = prefix_loss(logits, prefix)
    for k in range(N_Q):
        frames = [(b, t) for b in range(2) for t in range(5) if target[b, k, t] != CARD]
        steps = [prefix.target_start + k + t for _, t in frames]
        rows = torch.stack([logits[b, k, s - 1] for (b, _), s in zip(frames, steps, strict=True)])
        labels = torch.stack([target[b, k, t] for b, t in frames])
        torch.testing.assert_close(per_codebook[k], F.cross_entropy(rows, labels))
    torch.testing.assert_close(loss, per_codebook.mean())


def test_loss_of_the_last_logits_is_the_same():
    lm = tiny_lm()
    prefix = build_prefix(codes(2, N_Q, 6), codes(2, N_Q, 5, seed=1), **IDS)
    first = prefix.target_start - 1
    whole, whole_each = prefix_loss(run(lm, prefix), prefix)
    last, last_each = prefix_loss(run(lm, prefix, first_step=first), prefix)
    torch.testing.assert_close(whole, last)
    torch.testing.assert_close(whole_each, last_each)
    with pytest.raises(StageLiteError, match="expected at least the last 9 of 16"):
        prefix_loss(run(lm, prefix, first_step=first + 1), prefix)


def test_prefix_never_reaches_the_loss():
    """No logit in front of the target has a gradient, and no label there changes the loss."""
    lm = tiny_lm()
    prefix = build_prefix([codes(N_Q, 6), codes(N_Q, 4), None], codes(3, N_Q, 5, seed=1), **IDS)
    logits = run(lm, prefix).detach().requires_grad_()
    loss, _ = prefix_loss(logits, prefix)
    loss.backward()
    predicts = torch.zeros_like(prefix.loss_mask)
    predicts[:, :, :-1] = prefix.loss_mask[:, :, 1:]
    assert torch.equal(logits.grad.abs().sum(-1) > 0, predicts)
    sequence = torch.where(prefix.loss_mask, prefix.sequence, (prefix.sequence + 1) % CARD)
    changed = prefix.__class__(
        sequence,
        prefix.attention_mask,
        prefix.positions,
        prefix.loss_mask,
        prefix.target_start,
        prefix.n_target_frames,
    )
    assert torch.equal(prefix_loss(logits, changed)[0], loss)


def test_masked_steps_get_no_gradient():
    """What is padded or dropped cannot be learnt from: its embedding does not matter."""
    lm = tiny_lm()
    prefix = build_prefix([codes(N_Q, 6), None], codes(2, N_Q, 5, seed=1), **IDS)
    loss, _ = prefix_loss(run(lm, prefix), prefix)
    other = prefix.sequence.clone()
    masked = ~prefix.attention_mask[:, None].expand_as(other)
    other[masked] = 3
    same, _ = prefix_loss(forward(lm, other, prefix.attention_mask, prefix.positions), prefix)
    torch.testing.assert_close(same, loss, rtol=0, atol=1e-6)


def test_nothing_known_is_no_loss():
    lm = tiny_lm()
    prefix = build_prefix(codes(1, N_Q, 3), torch.full((1, N_Q, 4), CARD), **IDS)
    loss, _ = prefix_loss(run(lm, prefix), prefix)
    assert loss == 0


# --- extend_embedding ----------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["kaiming", "mean", "zeros"])
def test_old_rows_keep_their_bits(init):
    lm = tiny_lm(context_token=False)
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    assert not has_context_row(lm)
    assert extend_embedding(lm, init=init) is lm
    assert has_context_row(lm)
    for name, value in lm.state_dict().items():
        if name.startswith("emb."):
            assert value.shape == (CARD + 2, 32)
            assert torch.equal(value[:-1], before[name])
            row = value[-1]
            if init == "mean":
                torch.testing.assert_close(row, before[name][:CARD].mean(0))
            elif init == "zeros":
                assert not row.any()
            else:
                assert 0.1 < row.std() < 0.5  # sqrt(2 / 32) = 0.25
        else:
            assert torch.equal(value, before[name])


def test_extending_is_seeded_and_leaves_global_chance_alone():
    state = torch.random.get_rng_state()
    first, second, third = (
        extend_embedding(tiny_lm(context_token=False), seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.emb[0].weight, second.emb[0].weight)
    assert not torch.equal(first.emb[0].weight, third.emb[0].weight)
    assert not torch.equal(first.emb[0].weight[-1], first.emb[1].weight[-1])


def test_extending_twice_is_refused(unchecked_types):
    with pytest.raises(StageLiteError, match="18 rows for card 16.*is there already"):
        extend_embedding(tiny_lm())
    with pytest.raises(StageLiteError, match="expected 'kaiming', 'mean' or 'zeros'"):
        extend_embedding(tiny_lm(context_token=False), init="ones")


def test_extended_equals_original_without_the_new_token():
    lm = tiny_lm(context_token=False)
    sequence = delay(codes(2, N_Q, 9), CARD)
    before = forward(lm, sequence)
    extend_embedding(lm)
    assert torch.equal(forward(lm, sequence), before)


def test_extended_model_survives_save_and_load(tmp_path):
    from safetensors.torch import load_file, save_file

    lm = tiny_lm()
    save_file(lm.state_dict(), tmp_path / "lm.safetensors")
    again = tiny_lm(seed=1)
    again.load_state_dict(load_file(tmp_path / "lm.safetensors"))
    prefix = build_prefix(codes(1, N_Q, 3), codes(1, N_Q, 4, seed=1), **IDS)
    assert torch.equal(run(again, prefix), run(lm, prefix))
    plain = tiny_lm(context_token=False)
    with pytest.raises(RuntimeError, match="size mismatch"):
        plain.load_state_dict(lm.state_dict())


def test_the_new_row_learns_and_reads_as_audiocraft_reads_it():
    """audiocraft's own forward looks the extended table up like any other."""
    lm = tiny_lm()
    prefix = build_prefix(codes(1, N_Q, 3), codes(1, N_Q, 4, seed=1), **IDS)
    no_text = {"description": (torch.zeros(1, 1, 32), torch.zeros(1, 1))}
    expected = lm(prefix.sequence, [], no_text)
    torch.testing.assert_close(run(lm, prefix), expected, rtol=0, atol=1e-5)
    prefix_loss(run(lm, prefix), prefix)[0].backward()
    assert all(table.weight.grad[CARD + 1].abs().sum() > 0 for table in lm.emb)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "options", "message"),
    [
        ([codes(N_Q, 3)], {}, "context_codes has 1 rows, target_codes 2"),
        (
            [codes(3, 3), None],
            {},
            r"context of row 0 has the shape \[3, 3\]: expected \[4, frames\]",
        ),
        (
            [None, codes(N_Q, 3) + CARD],
            {},
            r"context_codes\[1, 0, 0\] is .*expected codes in \[0, 15\]",
        ),
        (codes(2, N_Q, 3) - CARD, {}, r"context_codes\[0, 0, 0\] is -"),
        (codes(2, N_Q, 9), {"anchor_frames": -3}, r"anchor_frames is -3: expected -1 \(aligned\)"),
    ],
)
def test_bad_contexts_are_named(context, options, message, unchecked_types):
    with pytest.raises(StageLiteError, match=message):
        build_prefix(context, codes(2, N_Q, 4), **IDS, **options)


def test_bad_targets_and_ids_are_named():
    target = codes(1, N_Q, 4)
    target[0, 2, 1] = CARD + 1
    with pytest.raises(StageLiteError, match=r"target_codes\[0, 2, 1\] is 17"):
        build_prefix(None, target, **IDS)
    with pytest.raises(StageLiteError, match="are both 16"):
        build_prefix(None, codes(1, N_Q, 4), special_token_id=CARD, context_token_id=CARD)


def test_a_context_for_a_model_without_the_token_is_refused():
    prefix = build_prefix(codes(1, N_Q, 3), codes(1, N_Q, 4), **IDS)
    with pytest.raises(
        StageLiteError, match="holds the id 17, the context token: try extend_embed"
    ):
        run(tiny_lm(context_token=False), prefix)


def test_aligned_positions_count_context_and_target_alike():
    target = torch.arange(6).view(1, 2, 3) % 4
    contexts = [torch.zeros(2, 5, dtype=torch.int64)]
    p = build_prefix(
        contexts, target, special_token_id=4, context_token_id=5, anchor_frames=ALIGNED
    )
    first = int((p.sequence[0, 0] == 5).nonzero()) - 5  # step of the context's frame 0, codebook 0
    assert p.positions[0, first] == p.positions[0, p.target_start] == 1
    assert p.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]
