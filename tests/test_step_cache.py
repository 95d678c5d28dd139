"""The cache in bytes computes attention over what it holds, and holds nearly what it was given."""

import pytest
import torch
import torch.nn.functional as F

import stage_lite.step_cache as step_cache
from stage_lite.decoder import Decoder
from stage_lite.held_weights import held_weights
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.prefix import build_prefix
from stage_lite.step_cache import BLOCK, ByteCache, ExactCache
from stage_lite.text import encode_text

ROWS, HEADS, WIDTH = 2, 3, 16
CARD, N_Q = 16, 4

kernels = pytest.mark.skipif(
    not ByteCache.possible(WIDTH, torch.device("cpu")), reason="this torch has no fbgemm kernels"
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind, n_steps, n_layers=2):
    sizes = (n_layers, ROWS, HEADS, n_steps, WIDTH)
    return ByteCache(*sizes) if kind == "bytes" else ExactCache(*sizes, torch.zeros(1))


def attended(q, k, v):
    """[rows, H, width] of one query [rows, H, 1, width] over all keys."""
    return F.scaled_dot_product_attention(q, k, v).squeeze(2)


@kernels
@pytest.mark.parametrize("n", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 44])
def test_attention_is_over_what_is_held(n):
    """Scores of keys that lie in blocks, on scales of their own, and values summed by weight."""
    cache = make("bytes", 3 * BLOCK)
    new = random(ROWS, 3, HEADS, 1, WIDTH, seed=2) * 3
    _, k1, v1 = new.unbind(1)
    at_once = make("bytes", 1)
    held = [torch.cat(pair, 2) for pair in zip(
        cache.fill(1, random(ROWS, HEADS, n, WIDTH) * 3 + 1, random(ROWS, HEADS, n, WIDTH, seed=1)),
        at_once.fill(1, k1, v1),
        strict=True,
    )]  # fmt: skip
    mixed = cache.attend(1, new, n)
    torch.testing.assert_close(mixed, attended(new[:, 0], *held), rtol=1e-4, atol=1e-5)


@kernels
@pytest.mark.parametrize("n", [1, BLOCK + 2])
def test_filled_at_once_is_filled_step_by_step(n):
    new = random(ROWS, 3, HEADS, n, WIDTH)
    at_once, by_step = make("bytes", n + 3), make("bytes", n + 3)
    at_once.fill(0, new[:, 1], new[:, 2])
    for at in range(n):
        by_step.attend(0, new[..., at : at + 1, :], at)
    for name in ("keys", "values", "ranges"):
        for a, b in zip(getattr(at_once, name), getattr(by_step, name), strict=True):
            assert torch.equal(a, b), name


@kernels
@pytest.mark.parametrize("loud", [1.0, 1e-4, 1e4])
def test_what_is_held_is_near(loud):
    """At most half of a level off, 1 / 510 of the range of a step's head, loud or soft."""
    x = random(ROWS, HEADS, 50, WIDTH) * loud
    x[0, 1, 7] = 3.0  # no range at all
    for held in make("bytes", 50).fill(0, x, x):
        span = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
        assert ((held - x).abs() <= span / 505 + 1e-6 * x.abs().amax()).all()


@kernels
def test_a_loud_head_does_not_drown_the_others():
    k, v = random(ROWS, HEADS, 20, WIDTH), random(ROWS, HEADS, 20, WIDTH, seed=1)
    loud_k, loud_v = k.clone(), v.clone()
    loud_k[1, 2], loud_v[1, 2] = k[1, 2] * 1e5, v[1, 2] * 1e5
    loud_k[:, :, 3], loud_v[:, :, 3] = k[:, :, 3] * 1e5, v[:, :, 3] * 1e5
    quiet = make("bytes", 20).fill(0, k, v)
    for a, b in zip(quiet, make("bytes", 20).fill(0, loud_k, loud_v), strict=True):
        same = torch.ones(ROWS, HEADS, 20, dtype=torch.bool)
        same[1, 2] = same[:, :, 3] = False
        assert torch.equal(a[same], b[same])


@pytest.mark.parametrize("kind", ["exact", pytest.param("bytes", marks=kernels)])
def test_the_same_calls_at_any_place(kind):
    n_steps = BLOCK + 30
    one, other = make(kind, n_steps), make(kind, n_steps)
    counts = torch.arange(n_steps)
    k, v = random(ROWS, HEADS, BLOCK - 2, WIDTH), random(ROWS, HEADS, BLOCK - 2, WIDTH, seed=1)
    for cache in (one, other):
        cache.fill(0, k, v)
    for at in range(BLOCK - 2, BLOCK + 3):  # over the border of a block
        new = random(ROWS, 3, HEADS, 1, WIDTH, seed=at)
        a = one.attend(0, new, at).reshape(ROWS, HEADS, WIDTH)
        b = other.attend_anywhere(0, new, torch.tensor([at]), counts <= at)
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_steps", [1, BLOCK, 1001])
def test_its_size_is_known_before(n_steps):
    sizes = (2, ROWS, HEADS, n_steps, WIDTH)
    assert ByteCache.bytes_of(*sizes) == make("bytes", n_steps).nbytes
    assert ExactCache.bytes_of(*sizes, 4) == make("exact", n_steps).nbytes


def test_a_quarter_at_musicgens_size():
    sizes = (24, 2, 16, 1000, 64)
    assert ByteCache.bytes_of(*sizes) < 0.3 * ExactCache.bytes_of(*sizes, 4)


# --- in a decoder --------------------------------------------------------------------------------


def make_lm(dim=32):
    words = ("drums", "bass", "bossa", "nova")
    lm = build_lm(
        LMConfig(n_q=N_Q, card=CARD, dim=dim, num_layers=2, num_heads=2, vocabulary=words,
                 word_dim=8, context_token=True),
        seed=0,
    )  # fmt: skip
    with torch.no_grad():
        for head in lm.linears:
            head.weight *= 10
        lm.condition_provider.conditioners["description"].output_proj.weight *= 5
    return lm


def codes(*shape, seed=0):
    return torch.randint(0, CARD, shape, generator=torch.Generator().manual_seed(seed))


def decoder_of(lm, n_steps=12, **settings):
    target = codes(2, N_Q, n_steps, seed=3)
    prefix = build_prefix(
        [codes(N_Q, 7), None], target, special_token_id=CARD, context_token_id=CARD + 1
    )
    encoded, _ = encode_text(lm, ["drums bossa"])
    return Decoder(lm, prefix, [encoded[0], None], **settings), prefix.sequence


def written(lm, first, **settings):
    """Logits behind every step from 12 on, of which the first ones come of one pass."""
    decoder, sequence = decoder_of(lm, **settings)
    logits = [decoder.prefill(sequence[:, :, :first])]
    logits += [decoder.step(sequence[:, :, at]) for at in range(first, sequence.shape[2])]
    return torch.stack(logits[12 - first :] if first < 12 else logits)


@pytest.mark.parametrize("cache", ["exact", pytest.param("bytes", marks=kernels)])
@pytest.mark.parametrize(("weights", "most"), [("fp32", 1e-5), ("bf16", 0.005), ("int8", 0.03)])
def test_a_pass_over_the_prefix_is_its_steps(cache, weights, most):
    """int8 rounds activations of both rows together in a step and each on its own in a pass; in
    bf16 the sums run in another order before they are rounded."""
    lm = make_lm(dim=128)
    by_pass = written(lm, 12, weights=weights, cache=cache)
    by_step = written(lm, 9, weights=weights, cache=cache)
    assert ((by_pass - by_step).norm() / by_pass.norm()) < most


@kernels
def test_bytes_cost_less_than_rounded_weights():
    lm = make_lm(dim=128)
    exact = written(lm, 12, weights="fp32", cache="exact")
    error = {
        (weights, cache): float(
            (written(lm, 12, weights=weights, cache=cache) - exact).norm() / exact.norm()
        )
        for weights in ("fp32", "int8")
        for cache in ("exact", "bytes")
    }
    assert 0 < error["fp32", "bytes"] < 0.005
    assert error["fp32", "bytes"] < 0.5 * error["int8", "exact"]


@pytest.mark.parametrize("cache", ["exact", pytest.param("bytes", marks=kernels)])
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_the_fixed_step_is_the_step_with_either_cache(cache, weights):
    """Exact with bf16 is what a GPU does: here it runs through the same calls."""
    lm = make_lm()
    plain = written(lm, 12, weights=weights, cache=cache)
    fixed = written(lm, 12, weights=weights, cache=cache, graph=True)
    torch.testing.assert_close(fixed, plain, rtol=0, atol=1e-4)


def kinds_of(decoder):
    return {type(group.cache) for group in decoder.groups}


@kernels
def test_bytes_go_with_rounded_weights(monkeypatch):
    lm = make_lm()
    assert (
        kinds_of(decoder_of(lm)[0]) == kinds_of(decoder_of(lm, weights="fp32")[0]) == {ExactCache}
    )
    for weights in ("bf16", "int8"):
        assert kinds_of(decoder_of(lm, weights=weights)[0]) == {ByteCache}
    monkeypatch.setattr(step_cache, "has_dynamic_int8", lambda: False)
    assert kinds_of(decoder_of(lm, weights="bf16")[0]) == {ExactCache}
    assert not ByteCache.possible(16, torch.device("cuda"))
    assert not ByteCache.possible(18, torch.device("cpu"))


@pytest.mark.parametrize(("weights", "most"), [("fp32", 1e-5), ("bf16", 0.01), ("int8", 0.03)])
def test_a_short_text_becomes_two_thin_matrices(weights, most):
    """Whatever holds the matrices, and with the same logits."""
    lm = make_lm(dim=128)
    decoder, _ = decoder_of(lm, weights=weights)
    assert decoder.text.folded
    folded = written(lm, 12, weights=weights)
    held_weights(lm, weights).heads.itemsize = 0  # then nothing weighs less
    whole, _ = decoder_of(lm, weights=weights)
    assert not whole.text.folded
    plain = written(lm, 12, weights=weights)
    assert ((folded - plain).norm() / plain.norm()) < most
