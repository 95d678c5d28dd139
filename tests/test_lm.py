"""One forward pass: equal to audiocraft's, equal to itself by every other way."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from stage_lite.delay import delay
from stage_lite.errors import StageLiteError
from stage_lite.lm import KVCache, forward, sin_positions
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.prefix import build_prefix, prefix_loss
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

WORDS = ("drums", "bass", "bossa", "nova")
TINY = LMConfig(card=16, dim=32, num_layers=2, num_heads=2, vocabulary=WORDS, word_dim=8)
SIZES = {
    "tiny": TINY,
    "one layer, one codebook": replace(TINY, n_q=1, num_layers=1, num_heads=1),
    "odd sizes": replace(TINY, n_q=3, card=11, dim=54, num_heads=3, num_layers=3, hidden_scale=2),
    "eight codebooks": replace(TINY, n_q=8, dim=64, num_heads=8),
    "nano": LMConfig(vocabulary=WORDS, num_layers=3),
}
TEXTS = {
    "null text": [None, None, None],
    "text": ["drums, bossa nova", "bass", "drums unknown-word"],
    "some text": ["drums, bossa nova", None, ""],
}


def random_sequence(config, n_batch=3, n_frames=13, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, config.card, (n_batch, config.n_q, n_frames), generator=generator)
    return delay(codes, config.card)


def close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("size", SIZES)
def test_without_prefix_equal_to_musicgen(size, texts):
    config, descriptions = SIZES[size], TEXTS[texts]
    lm, sequence = build_lm(config, seed=0), random_sequence(config)
    attributes = audiocraft_classes().ConditioningAttributes
    with torch.no_grad():
        expected = lm(sequence, [attributes(text={"description": d}) for d in descriptions])
        text, text_mask = encode_text(lm, descriptions)
        logits = forward(lm, sequence, text=text, text_mask=text_mask)
    assert logits.shape == (3, config.n_q, sequence.shape[2], config.card)
    assert expected.abs().max() > 0.1
    close(logits, expected)


def test_equal_to_musicgen_where_matrices_have_biases():
    """A null text then says something, and must be read."""
    ac = audiocraft_classes()
    lm = build_lm(TINY, seed=0)
    biased = ac.LMModel(
        lm.pattern_provider, lm.condition_provider, lm.fuser, n_q=4, card=16, dim=32, num_heads=2,
        num_layers=2, hidden_scale=4, norm_first=True, causal=True, custom=True, dropout=0.0,
        cross_attention=True, activation="gelu",
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for name, parameter in biased.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(generator=generator)
    sequence = random_sequence(TINY)
    for descriptions in TEXTS.values():
        conditions = [ac.ConditioningAttributes(text={"description": d}) for d in descriptions]
        text, text_mask = encode_text(biased, descriptions)
        with torch.no_grad():
            close(
                forward(biased, sequence, text=text, text_mask=text_mask),
                biased(sequence, conditions),
            )


def test_masked_words_are_zeroed_and_still_attended_to():
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY, 1)
    text = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False, False]])
    zeroed = text * mask.unsqueeze(-1)
    close(forward(lm, sequence, text=text, text_mask=mask), forward(lm, sequence, text=zeroed))
    cut = forward(lm, sequence, text=text[:, :2])
    assert (forward(lm, sequence, text=zeroed) - cut).abs().max() > 1e-4


@pytest.mark.parametrize("chunks", [[1] * 17, [5, 1, 1, 10], [16, 1], [17]])
def test_cached_equals_uncached(chunks):
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    text, text_mask = encode_text(lm, TEXTS["some text"])
    expected = forward(lm, sequence, text=text, text_mask=text_mask)
    cache = KVCache(lm, 3, sequence.shape[2])
    parts = []
    with torch.no_grad():
        for part in sequence.split(chunks, dim=2):
            parts.append(forward(lm, part, text=text, text_mask=text_mask, cache=cache))
    assert cache.length == 17
    close(torch.cat(parts, dim=2), expected)
    with pytest.raises(StageLiteError, match="the cache holds 17 steps: 18 do not fit"):
        forward(lm, sequence[:, :, :1], cache=cache)


def test_cached_equals_uncached_behind_left_padding():
    lm = build_lm(replace(TINY, context_token=True), seed=0)
    codes = random_sequence(TINY)[:, :, 4:9].clamp(max=15)
    prefix = build_prefix(
        [codes[0], codes[1, :, :2], None], codes, special_token_id=16, context_token_id=17
    )
    expected = forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)
    cache = KVCache(lm, 3, prefix.sequence.shape[2])
    parts = []
    with torch.no_grad():
        for start, end in [(0, 4), (4, 5), (5, prefix.sequence.shape[2])]:
            parts.append(
                forward(
                    lm,
                    prefix.sequence[:, :, start:end],
                    prefix.attention_mask[:, start:end],
                    prefix.positions[:, start:end],
                    cache=cache,
                )
            )
    valid = prefix.attention_mask[:, None, :, None]
    close(torch.cat(parts, dim=2) * valid, expected * valid)


def test_every_way_to_mask_gives_the_same():
    """The rolled fast path, the dense mask and the written-out attention, on left padding."""
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    mask = torch.ones(3, 17, dtype=torch.bool)
    mask[1, :5] = False
    mask[2, :16] = False
    positions = (torch.arange(17) - (~mask).sum(1, keepdim=True)).clamp(min=0)
    fast = forward(lm, sequence, mask, positions)
    open_, attention = forward(lm, sequence, mask, positions, need_attention=True)
    valid = mask[:, None, :, None]
    close(fast * valid, open_ * valid)
    assert fast.isfinite().all()
    assert attention.shape == (2, 3, 2, 17, 17)
    close(attention.sum(-1), torch.ones(2, 3, 2, 17))
    assert not attention[:, 1, :, 5:, :5].any()  # padding is never looked at
    assert not attention.triu(1).any()  # nor the future


def test_a_mask_with_holes_hides_a_step_from_all_others_only():
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    mask = torch.ones(3, 17, dtype=torch.bool)
    mask[:, 6] = False
    holed = forward(lm, sequence, mask)
    other = sequence.clone()
    other[:, :, 6] = (other[:, :, 6] + 1) % 16
    changed = forward(lm, other, mask)
    close(holed[:, :, 7:], changed[:, :, 7:])
    assert (holed[:, :, 6] - changed[:, :, 6]).abs().max() > 1e-3  # it sees itself
    close(holed, forward(lm, sequence, mask, need_attention=True)[0])
    assert (holed[:, :, 7:] - forward(lm, sequence)[:, :, 7:]).abs().max() > 1e-4


def test_no_step_sees_the_future():
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    other = sequence.clone()
    other[:, :, 9:] = 3
    close(forward(lm, sequence)[:, :, :9], forward(lm, other)[:, :, :9], atol=1e-6)


def test_first_step_and_hidden():
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    logits = forward(lm, sequence)
    close(forward(lm, sequence, first_step=5), logits[:, :, 5:])
    again, hidden = forward(lm, sequence, need_hidden=True)
    assert torch.equal(again, logits)
    close(torch.stack([head(hidden) for head in lm.linears], dim=1), logits)


def test_gradients_equal_audiocrafts():
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    attributes = audiocraft_classes().ConditioningAttributes
    weigh = torch.randn(3, 4, 17, 16, generator=torch.Generator().manual_seed(0))
    descriptions = TEXTS["some text"]
    (
        lm(sequence, [attributes(text={"description": d}) for d in descriptions]) * weigh
    ).sum().backward()
    expected = {name: p.grad.clone() for name, p in lm.named_parameters()}
    lm.zero_grad()
    text, text_mask = encode_text(lm, descriptions)
    (forward(lm, sequence, text=text, text_mask=text_mask) * weigh).sum().backward()
    for name, parameter in lm.named_parameters():
        close(parameter.grad, expected[name], atol=1e-3 * max(1, expected[name].abs().max()))


def test_bfloat16_autocast_keeps_loss_and_gradients():
    """Half of the bits for the products, as training does it: close to all of them."""
    config = replace(TINY, dim=64, num_heads=1, context_token=True)
    lm = build_lm(config, seed=0)
    codes = random_sequence(config, 2, 30)[:, :, 4:30].clamp(max=15)
    prefix = build_prefix([codes[0, :, :20], None], codes, special_token_id=16, context_token_id=17)
    gradients = []
    for enabled in (False, True):
        lm.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            text, mask = encode_text(lm, ["drums", "bass bossa"])
            logits = forward(
                lm, prefix.sequence, prefix.attention_mask, prefix.positions, text, mask
            )
            loss, _ = prefix_loss(logits, prefix)
        loss.backward()
        gradients.append((loss.item(), {n: p.grad.clone() for n, p in lm.named_parameters()}))
    (loss, exact), (rough_loss, rough) = gradients
    assert abs(loss - rough_loss) < 0.02
    for name, gradient in exact.items():
        similarity = torch.cosine_similarity(gradient.flatten(), rough[name].flatten(), dim=0)
        assert similarity > 0.98, (name, similarity)


def test_a_model_in_bfloat16_runs():
    lm = build_lm(TINY, seed=0)
    sequence = random_sequence(TINY)
    expected = forward(lm, sequence)
    logits = forward(lm.bfloat16(), sequence)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.1


def test_wrapped_layers_are_called():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x)

    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    expected = forward(lm, sequence)
    layer = lm.transformer.layers[1]
    layer.linear1, layer.self_attn.out_proj = (
        Wrapped(layer.linear1),
        Wrapped(layer.self_attn.out_proj),
    )
    assert torch.equal(forward(lm, sequence), expected)
    assert layer.linear1.calls == layer.self_attn.out_proj.calls == 1


def test_the_forward_pass_can_be_exported_whole():
    """No control flow depends on data when mask and positions are tensors."""
    lm, sequence = build_lm(TINY, seed=0), random_sequence(TINY)
    mask = torch.ones(3, 17, dtype=torch.bool)
    mask[0, :3] = False
    positions = torch.arange(17).expand(3, -1).contiguous()

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.lm = lm

        def forward(self, sequence, mask, positions):
            return forward.__wrapped__(self.lm, sequence, mask, positions)

    exported = torch.export.export(Module(), (sequence, mask, positions), strict=False)
    result = exported.module()(sequence, mask, positions)
    valid = mask[:, None, :, None]
    close(result * valid, forward(lm, sequence, mask, positions) * valid)


def test_positions_are_audiocrafts_sines():
    from audiocraft.modules.transformer import create_sin_embedding

    positions = torch.arange(2000).view(1, -1)
    expected = create_sin_embedding(positions.unsqueeze(-1), 64)
    assert torch.equal(sin_positions(positions, 64, 10_000.0), expected)


# --- building ------------------------------------------------------------------------------------


def test_building_is_seeded_and_leaves_global_chance_alone():
    state = torch.random.get_rng_state()
    first, second, third = (build_lm(TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.emb[0].weight, third.emb[0].weight)
    assert not first.training


def test_state_dict_has_musicgens_names():
    names = set(build_lm(TINY, seed=0).state_dict())
    layer = "transformer.layers.1"
    assert {
        "emb.3.weight",
        "linears.3.weight",
        "out_norm.weight",
        f"{layer}.self_attn.in_proj_weight",
        f"{layer}.self_attn.out_proj.weight",
        f"{layer}.cross_attention.in_proj_weight",
        f"{layer}.norm_cross.bias",
        f"{layer}.linear1.weight",
        "condition_provider.conditioners.description.output_proj.weight",
    } <= names
    assert not any(n.endswith("bias") and "norm" not in n and "output_proj" not in n for n in names)


def test_config_survives_json():
    config = replace(TINY, context_token=True)
    assert LMConfig(**json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 33}, "LMConfig.dim is 33: expected an even multiple of num_heads = 2"),
        ({"num_layers": 0}, "LMConfig.num_layers is 0: expected a positive integer"),
        ({"card": 2.5}, "LMConfig.card is 2.5: expected a positive integer"),
    ],
)
def test_impossible_sizes_are_refused(change, message, unchecked_types):
    with pytest.raises(StageLiteError, match=message):
        replace(TINY, **change)


def test_unknown_geometry_is_named():
    ac = audiocraft_classes()
    lm = build_lm(TINY, seed=0)
    post_norm = ac.LMModel(
        lm.pattern_provider, lm.condition_provider, lm.fuser, n_q=4, card=16, dim=32, num_heads=2,
        num_layers=1, causal=True, custom=True, cross_attention=True, positional_embedding="rope",
    )  # fmt: skip
    with pytest.raises(StageLiteError, match="has post-norm layers, rotary positions: expected"):
        forward(post_norm, random_sequence(TINY))


def test_wrong_codebooks_and_ids_are_named():
    lm = build_lm(TINY, seed=0)
    with pytest.raises(StageLiteError, match="sequence has 3 codebooks: expected 4"):
        forward(lm, random_sequence(replace(TINY, n_q=3)))
    with pytest.raises(StageLiteError, match=r"the id -1, no code; expected ids in \[0, 16\]"):
        forward(lm, random_sequence(TINY) - 1)


def test_what_is_added_reaches_each_row_at_its_own_steps():
    """Behind any padding, a row with something added is computed as it would be alone."""
    config = LMConfig(card=16, dim=32, num_layers=2, num_heads=2)
    lm = build_lm(config, seed=0)
    sequence = random_sequence(config, n_batch=3)
    n_steps = sequence.shape[2]
    pads = torch.tensor([0, 4, 2])
    mask = torch.arange(n_steps) >= pads[:, None]
    positions = (torch.arange(n_steps) - pads[:, None]).clamp(min=0)
    added = torch.randn(3, n_steps, config.dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = forward(lm, sequence, mask, positions, added=added)
        for b, pad in enumerate(pads.tolist()):
            alone = forward(lm, sequence[b : b + 1, :, pad:], added=added[b : b + 1, pad:])
            close(together[b : b + 1, :, pad:], alone)
        assert not torch.allclose(alone, forward(lm, sequence[2:, :, 2:]), atol=1e-2)
