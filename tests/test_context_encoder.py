"""The encoder of the context: what it must not change, and that all ways through it agree."""

import pytest
import torch
from test_attention import example

import stage_lite as sl
from stage_lite.context_encoder import DILATIONS, N_PHASES, TAPS, ContextEncoder, context_steps
from stage_lite.errors import StageLiteError
from stage_lite.listening import context_losses, encoder_swap
from stage_lite.prefix import ALIGNED, build_prefix
from stage_lite.text import encode_text
from stage_lite.weights import load_weights, save_weights

CARD, N_Q = 16, 4
IDS = {"special_token_id": CARD, "context_token_id": CARD + 1}


@pytest.fixture
def lm():
    """A small model whose encoder says something."""
    config = sl.LMConfig(
        n_q=N_Q, card=CARD, dim=64, num_layers=2, num_heads=2, vocabulary=("drums",),
        context_token=True, context_encoder=24,
    )  # fmt: skip
    lm = sl.build_lm(config, seed=3)
    encoder = lm.context_encoder
    with torch.no_grad():
        for linear in (encoder.of_phase, encoder.of_root, encoder.of_features):
            linear.weight.normal_(generator=torch.Generator().manual_seed(5))
    return lm


def codes(n_frames, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, CARD, (*batch, N_Q, n_frames), generator=generator)


def logits_of(lm, prefix):
    return sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)


def test_context_steps_end_with_the_token_and_leave_padding_out():
    contexts = [codes(3), codes(5), None]
    prefix = build_prefix(contexts, codes(4, 3), **IDS)
    found = context_steps(prefix.sequence, CARD + 1, prefix.attention_mask)
    assert found.sum(1).tolist() == [5, 7, 0]  # the empty first step, the frames, the token
    assert not found[:, prefix.target_start :].any()
    assert context_steps(sl.delay(codes(4, 1), CARD), CARD + 1) is None


def test_a_new_encoder_changes_nothing(lm):
    prefix = build_prefix([codes(6)], codes(4, 1), **IDS)
    plain = sl.build_lm(sl.LMConfig(n_q=N_Q, card=CARD, dim=64, num_layers=2, num_heads=2,
                                    vocabulary=("drums",), context_token=True), seed=3)  # fmt: skip
    expected = logits_of(plain, prefix)
    assert not torch.allclose(logits_of(lm, prefix), expected, atol=1e-3)
    plain.context_encoder = ContextEncoder(N_Q, CARD, 64, 24)
    assert torch.equal(logits_of(plain, prefix), expected)


def test_it_reads_the_context_both_ways_and_never_the_target(lm):
    context, target = codes(9, seed=1), codes(5, 1, seed=2)
    prefix = build_prefix([context], target, **IDS)
    steps = context_steps(prefix.sequence, CARD + 1)
    heard = lm.context_encoder(prefix.sequence, steps)
    assert heard[:, : prefix.target_start].abs().amin() > 0
    assert not heard[:, prefix.target_start :].any()
    other = build_prefix([context], (target + 1) % CARD, **IDS)
    assert torch.equal(heard, lm.context_encoder(other.sequence, steps))
    changed = context.clone()
    changed[0, -1] = (changed[0, -1] + 1) % CARD
    later = build_prefix([changed], target, **IDS)
    assert not torch.allclose(heard[:, 1], lm.context_encoder(later.sequence, steps)[:, 1])


def test_it_reaches_over_the_whole_context():
    reach = sum(TAPS // 2 * dilation for dilation in DILATIONS)
    assert reach >= 400  # frames of 8 s
    assert N_PHASES == 16


@pytest.mark.parametrize("anchor_frames", [None, ALIGNED])
def test_padded_rows_compute_what_they_compute_alone(lm, anchor_frames):
    contexts = [codes(7, seed=1), codes(3, seed=2), None]
    targets = codes(6, 3, seed=3)
    together = build_prefix(contexts, targets, **IDS, anchor_frames=anchor_frames)
    logits = logits_of(lm, together)
    for b, context in enumerate(contexts):
        alone = build_prefix(
            None if context is None else [context], targets[b : b + 1], **IDS,
            anchor_frames=anchor_frames,
        )  # fmt: skip
        n_steps = 6 + N_Q
        expected = logits_of(lm, alone)[0, :, -n_steps:]
        torch.testing.assert_close(logits[b, :, -n_steps:], expected, atol=1e-5, rtol=1e-5)


def test_a_dropped_context_is_no_context(lm):
    target = codes(6, 2, seed=3)
    dropped = build_prefix(codes(7, 2), target, **IDS, context_dropped=torch.tensor([True, True]))
    n_steps = 6 + N_Q
    expected = logits_of(lm, build_prefix(None, target, **IDS))[..., -n_steps:, :]
    torch.testing.assert_close(
        logits_of(lm, dropped)[..., -n_steps:, :], expected, atol=1e-5, rtol=1e-5
    )


def test_masked_attention_and_attention_on_request_hear_it_too(lm):
    prefix = build_prefix([codes(7, seed=1), codes(3, seed=2)], codes(6, 2, seed=3), **IDS)
    first = prefix.target_start
    expected = logits_of(lm, prefix)[:, :, first:]
    openly, _ = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions,
                           need_attention=True)  # fmt: skip
    torch.testing.assert_close(openly[:, :, first:], expected, atol=1e-5, rtol=1e-5)


def test_generation_equals_the_forward_pass(lm):
    context = codes(7, seed=1)
    made = sl.generate_codes(lm, [context], ["drums"], 8, temperature=0.0, cfg_coef=1.0)
    prefix = build_prefix([context], made.codes, **IDS)
    text, mask = encode_text(lm, ["drums"])
    logits = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions, text, mask)
    best = logits.argmax(-1)
    for k in range(N_Q):
        first = prefix.target_start + k
        assert torch.equal(best[0, k, first - 1 : first + 7], made.codes[0, k])


def test_save_and_load(lm, tmp_path):
    save_weights(lm, tmp_path / "lm.safetensors")
    config = sl.LMConfig(n_q=N_Q, card=CARD, dim=64, num_layers=2, num_heads=2,
                         vocabulary=("drums",), context_token=True, context_encoder=24)  # fmt: skip
    again = sl.build_lm(config, seed=9)
    load_weights(again, tmp_path / "lm.safetensors")
    prefix = build_prefix([codes(7)], codes(4, 1), **IDS)
    assert torch.equal(logits_of(again, prefix), logits_of(lm, prefix))


def test_gradients_reach_every_part(lm):
    prefix = build_prefix([codes(7)], codes(6, 1, seed=3), **IDS)
    sl.prefix_loss(logits_of(lm, prefix), prefix)[0].backward()
    for name, parameter in lm.context_encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# --- what of listening is the encoder's -----------------------------------------------------------


def three_songs():
    return [example(30, seed=seed, song=song) for seed, song in enumerate("abc")]


def test_encoder_swap_has_the_losses_of_listening_at_its_ends(tiny_model):
    encoder = tiny_model.lm.context_encoder = ContextEncoder(
        N_Q, CARD, tiny_model.lm.dim, 24
    ).eval()
    plain = encoder_swap(tiny_model, three_songs())
    assert plain["codes wrong"] == plain["both wrong"] != plain["both right"]
    assert plain["encoder wrong"] == plain["both right"]  # a new encoder says nothing
    with torch.no_grad():
        encoder.of_features.weight.normal_(generator=torch.Generator().manual_seed(5))
    loss, known = (f(tiny_model, three_songs()) for f in (encoder_swap, context_losses))
    assert loss["both right"] == pytest.approx(known["right_hidden"], abs=1e-5)
    assert loss["both wrong"] == pytest.approx(known["shuffled_hidden"], abs=1e-5)
    assert len(set(loss.values())) == 4 and not encoder._forward_pre_hooks


def test_encoder_swap_says_what_it_needs(tiny_model):
    with pytest.raises(StageLiteError, match="no context encoder"):
        encoder_swap(tiny_model, three_songs())
    tiny_model.lm.context_encoder = ContextEncoder(N_Q, CARD, tiny_model.lm.dim, 24).eval()
    with pytest.raises(StageLiteError, match="contexts differ in length"):
        encoder_swap(tiny_model, [*three_songs(), example(12, seed=9, song="d")])
