"""fp32 is the reference to the code; bf16 and int8 are close, held once, and never stale."""

import gc
import weakref

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import stage_lite.held_weights as held_weights_file
import stage_lite.matrices as matrices
from stage_lite.decoder import Decoder
from stage_lite.errors import StageLiteError
from stage_lite.generate import generate_codes, stream_codes
from stage_lite.held_weights import fill_int8, give_up, held_weights
from stage_lite.lm import forward
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.matrices import AddingLinear, DynamicInt8, WeightOnlyInt8, linear_for, quantize_rows
from stage_lite.model import load
from stage_lite.prefix import build_prefix, extend_embedding
from stage_lite.sampling import Sampler
from stage_lite.text import encode_text

CARD, N_Q = 16, 4
KINDS = ("fp32", "bf16", "int8")
dynamic = pytest.mark.skipif(
    not matrices.has_dynamic_int8(), reason="this torch has no fbgemm kernels"
)


def make_lm(**sizes):
    sizes = {"card": CARD, "n_q": N_Q, "dim": 32, "num_layers": 2, "num_heads": 2} | sizes
    words = ("drums", "bass", "bossa", "nova")
    lm = build_lm(LMConfig(vocabulary=words, word_dim=8, context_token=True, **sizes), seed=0)
    with torch.no_grad():  # untrained logits are close to equal: sharpen them, so choices differ
        for head in lm.linears:
            head.weight *= 10
        lm.condition_provider.conditioners["description"].output_proj.weight *= 5
    return lm


@pytest.fixture
def lm():
    return make_lm()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape, seed=0):
    return torch.randint(0, CARD, shape, generator=torch.Generator().manual_seed(seed))


CONTEXT = codes(N_Q, 7)


def the_reference(lm, context, text, n_frames, seed, cfg_coef=3.0, top_k=5, temperature=1.2):
    """`sl.forward` over everything, without a cache, for every step; then the sampler."""
    generator = torch.Generator().manual_seed(seed)
    sampler = Sampler(temperature, top_k, 0.0, [generator])
    target = torch.full((1, N_Q, n_frames), CARD)
    for i in range(n_frames + N_Q - 1):
        logits = []
        for row, words in ((context, text), (None, None)):
            prefix = build_prefix([row], target, special_token_id=CARD, context_token_id=CARD + 1)
            encoded, mask = encode_text(lm, [words])
            with torch.no_grad():
                out = forward(
                    lm, prefix.sequence, prefix.attention_mask, prefix.positions, encoded, mask
                )
            logits.append(out[:, :, prefix.target_start + i - 1])
        chosen = sampler(torch.lerp(logits[1], logits[0], cfg_coef))
        for k in range(N_Q):
            if 0 <= i - k < n_frames:
                target[0, k, i - k] = chosen[0, k, 0]
    return target


@pytest.mark.parametrize("seed", [0, 7])
def test_fp32_is_the_reference_under_a_seed(lm, seed):
    expected = the_reference(lm, CONTEXT, "drums bossa", 12, seed)
    for weights in ("fp32", None):
        out = generate_codes(
            lm, [CONTEXT], ["drums bossa"], 12, seed=seed, top_k=5, temperature=1.2,
            weights=weights,
        )  # fmt: skip
        assert torch.equal(out.codes, expected)


# --- one matrix ----------------------------------------------------------------------------------


def test_int8_rounds_each_row_on_its_own_scale():
    weight = random(5, 64) * torch.tensor([1e-4, 1.0, 30.0, 0.0, 1.0])[:, None]
    values, scales = quantize_rows(weight)
    assert values.dtype == torch.int8
    assert values[[0, 1, 2, 4]].abs().amax(1).tolist() == [127] * 4  # every row uses all levels
    assert not values[3].any()
    error = (values * scales[:, None] - weight).abs()
    assert (error <= scales[:, None] * 0.5001).all()


@dynamic
@pytest.mark.parametrize("rows", [(2,), (1,), (40,), (2, 9)])
@pytest.mark.parametrize("bias", [False, True])
def test_an_int8_matrix_is_close(rows, bias):
    weight, x = random(96, 64), random(*rows, 64, seed=1)
    b = random(96, seed=2) if bias else None
    exact = torch.nn.functional.linear(x, weight, b)
    for kind in (DynamicInt8, WeightOnlyInt8):
        y = kind(weight, b)(x)
        assert y.shape == exact.shape and y.dtype == torch.float32
        assert ((y - exact).norm() / exact.norm()) < 0.02


@dynamic
def test_a_prefix_is_rounded_step_by_step():
    """One loud step among many does not drown the others: each is brought to its own scale."""
    weight, x = random(96, 64), random(40, 64, seed=1)
    x[3] *= 1e4
    x[5] = 0
    y, exact = DynamicInt8(weight, None)(x), x @ weight.t()
    quiet = [row for row in range(40) if row != 5]
    errors = (y - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-9)
    assert errors[quiet].max() < 0.03
    assert not y[5].any()


def test_bf16_is_the_product_of_rounded_numbers():
    weight, x = random(96, 64), random(2, 64, seed=1)
    y = linear_for(weight, None, "bf16")(x)
    exact = x.bfloat16().double() @ weight.bfloat16().double().t()
    assert y.dtype == torch.float32
    assert ((y - exact).norm() / exact.norm()) < 2**-8


def test_the_setting_of_torch_stays():
    engine = torch.backends.quantized.engine
    linear_for(random(8, 8), None, "int8")
    assert torch.backends.quantized.engine == engine


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_broken_weights_are_refused(lm, wrong):
    with torch.no_grad():
        lm.transformer.layers[1].linear1.weight[3, 4] = wrong
    with pytest.raises(StageLiteError, match="NaN or infinite numbers, which int8 cannot hold"):
        generate_codes(lm, None, "drums", 3, weights="int8")


# --- the whole model -----------------------------------------------------------------------------


def logits_of(lm, weights, n_steps=30):
    """Logits of a prefix and of the steps behind it, with given codes."""
    target = codes(1, N_Q, n_steps, seed=3)
    prefix = build_prefix([CONTEXT], target, special_token_id=CARD, context_token_id=CARD + 1)
    encoded, _ = encode_text(lm, ["drums bossa"])
    decoder = Decoder(lm, prefix, [encoded[0]], weights)
    sequence = prefix.sequence
    out = [decoder.prefill(sequence[:, :, :15])]
    out += [decoder.step(sequence[:, :, at]) for at in range(15, sequence.shape[2])]
    return torch.stack(out)


@pytest.mark.parametrize(("weights", "most"), [("fp32", 1e-5), ("bf16", 0.02), ("int8", 0.06)])
def test_logits_stay_close(weights, most):
    lm = make_lm(dim=128, num_layers=4)
    exact = logits_of(lm, "fp32")
    error = (logits_of(lm, weights) - exact).norm() / exact.norm()
    assert error < most
    assert (error > 1e-4) == (weights != "fp32")  # it really is something else


@pytest.mark.parametrize(("weights", "most"), [("bf16", 0.01), ("int8", 0.03)])
def test_a_single_text_is_read_through_matrices_of_the_models_kind(weights, most):
    lm = make_lm(dim=128, num_layers=2)
    encoded, _ = encode_text(lm, ["drums bossa"])
    target = codes(2, N_Q, 4)
    x, normed = random(2, 128, seed=1), random(2, 128, seed=2)

    def heard(weights, texts):
        prefix = build_prefix([None] * 2, target, special_token_id=CARD, context_token_id=CARD + 1)
        text = Decoder(lm, prefix, texts, weights).text
        return text, text.reader(0, 2)(1, x.clone(), normed) - x

    text, read = heard(weights, [encoded[0], None])
    _, exact = heard("fp32", [encoded[0], None])
    assert all(type(matrix) is type(text.w.heads) for pair in text.pairs for matrix in pair)
    assert 0 < (read - exact).norm() < most * exact.norm()
    assert torch.equal(read[1], torch.zeros(128))  # the row without text hears nothing
    assert not heard(weights, [encoded[0], encoded[0]])[0].single


def test_without_fbgemm_int8_is_weight_only(monkeypatch):
    lm = make_lm(dim=128, num_layers=4)
    exact = logits_of(lm, "fp32")
    monkeypatch.setattr(matrices, "has_dynamic_int8", lambda: False)
    assert isinstance(held_weights(lm, "int8").heads, WeightOnlyInt8)
    assert ((logits_of(lm, "int8") - exact).norm() / exact.norm()) < 0.06


def test_rows_do_not_hear_each_other_in_bf16(lm):
    contexts, texts = [CONTEXT, None, codes(N_Q, 4, seed=1)], ["drums", None, "bass nova"]
    together = generate_codes(lm, contexts, texts, 9, temperature=0, weights="bf16").codes
    for b in range(3):
        alone = generate_codes(lm, [contexts[b]], [texts[b]], 9, temperature=0, weights="bf16")
        assert torch.equal(together[b], alone.codes[0])


@pytest.mark.parametrize("weights", KINDS)
def test_a_stream_is_the_whole(lm, weights):
    settings = {"seed": 3, "weights": weights}
    whole = generate_codes(lm, [CONTEXT], "drums", 9, **settings).codes
    assert torch.equal(
        torch.cat(list(stream_codes(lm, [CONTEXT], "drums", 9, **settings)), 2), whole
    )


def test_a_model_in_bf16_is_weights_bf16_of_rounded_ones(lm):
    rounded = make_lm().bfloat16()
    for weights in (None, "bf16"):
        out = generate_codes(rounded, [CONTEXT], "drums", 9, temperature=0, weights=weights)
        assert out.codes.shape == (1, N_Q, 9)
    w = held_weights(rounded)
    assert w.table.dtype == torch.float32  # activations stay exact on a CPU
    assert w.layers[0].qkv.weight.data_ptr() == (
        rounded.transformer.layers[0].self_attn.in_proj_weight.data_ptr()
    )  # held once


# --- converted once, and never stale -------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch):
    """How many matrices were converted."""
    made = []

    def counted(weight, bias, weights):
        made.append(weights)
        return linear_for(weight, bias, weights)

    monkeypatch.setattr(held_weights_file, "linear_for", counted)
    return made


def test_a_second_call_converts_nothing(lm, conversions):
    first = generate_codes(lm, [CONTEXT], "drums", 5, seed=0, weights="int8").codes
    n = len(conversions)
    assert n == 2 * 8 + 1  # 8 matrices a layer, and the heads
    for _ in range(2):
        again = generate_codes(lm, [CONTEXT], "drums", 5, seed=0, weights="int8").codes
        assert torch.equal(again, first)
    assert len(conversions) == n


def trained(lm):
    optimizer = torch.optim.SGD(lm.parameters(), lr=10.0)
    forward(lm, codes(1, N_Q, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def written_over(lm):
    lm.transformer.layers[0].linear1.weight.data.mul_(3)  # leaves no version behind


def replaced(lm):
    lm.linears[0].weight = torch.nn.Parameter(lm.linears[0].weight.detach().flip(0).clone())


def loaded(lm):
    lm.load_state_dict({k: v * 1.5 for k, v in lm.state_dict().items()})


@pytest.mark.parametrize("change", [trained, written_over, replaced, loaded])
@pytest.mark.parametrize("weights", KINDS)
def test_changed_weights_are_noticed(change, weights):
    lm, fresh = make_lm(), make_lm()
    settings = {"temperature": 0, "weights": weights}
    before = logits_of(lm, weights)
    generate_codes(lm, [CONTEXT], "drums", 5, **settings)
    change(lm)
    fresh.load_state_dict(lm.state_dict())
    after = logits_of(lm, weights)
    assert torch.equal(after, logits_of(fresh, weights))
    assert not torch.equal(after, before)


def test_an_added_token_is_noticed():
    words = ("drums", "bass")
    lm = build_lm(LMConfig(card=CARD, dim=32, num_layers=1, num_heads=2, vocabulary=words), seed=0)
    generate_codes(lm, None, "drums", 3, weights="int8")
    extend_embedding(lm)
    assert generate_codes(lm, [CONTEXT], "drums", 3, weights="int8").codes.shape == (1, N_Q, 3)


def test_what_was_converted_goes_with_its_model():
    lm = make_lm()
    generate_codes(lm, None, "drums", 2, weights="int8")
    converted = weakref.ref(held_weights(lm, "int8").layers[0].qkv)
    gone = weakref.ref(lm)
    assert converted() is not None
    generate_codes(lm, None, "drums", 2, weights="bf16")  # one copy at a time
    gc.collect()
    assert converted() is None
    del lm
    gc.collect()
    assert gone() is None


def test_fp32_and_bf16_models_are_not_copied(lm):
    w = held_weights(lm, "fp32")
    layer = lm.transformer.layers[1]
    assert isinstance(w.layers[1].qkv, AddingLinear)
    assert w.layers[1].qkv.weight.data_ptr() == layer.self_attn.in_proj_weight.data_ptr()
    assert (
        w.layers[1].cross_out.weight.data_ptr() == layer.cross_attention.out_proj.weight.data_ptr()
    )


# --- int8 for good -------------------------------------------------------------------------------


def test_giving_up_fp32_changes_no_code_and_leaves_no_matrix(lm):
    expected = generate_codes(lm, [CONTEXT], "drums", 9, seed=0, weights="int8").codes
    assert give_up(lm) is lm and give_up(lm) is lm
    for weights in (None, "int8"):
        out = generate_codes(lm, [CONTEXT], "drums", 9, seed=0, weights=weights)
        assert torch.equal(out.codes, expected)
    held = [n for n, p in lm.transformer.named_parameters() if not p.is_meta]
    assert held and all("norm" in name for name in held)
    assert all(head.weight.is_meta for head in lm.linears)


def test_an_empty_model_is_filled_with_int8(lm):
    from stage_lite.interop.build import empty_lm

    expected = generate_codes(lm, [CONTEXT], "drums", 9, seed=0, weights="int8").codes
    config = LMConfig(
        card=CARD, dim=32, num_layers=2, num_heads=2, word_dim=8, context_token=True,
        vocabulary=("drums", "bass", "bossa", "nova"),
    )  # fmt: skip
    light, state = empty_lm(config), lm.state_dict()
    fill_int8(light, lambda name: state[name].half().float() if "norm" in name else state[name])
    assert torch.equal(generate_codes(light, [CONTEXT], "drums", 9, seed=0).codes, expected)


@pytest.fixture
def light(tiny_model, tmp_path):
    tiny_model.save(tmp_path / "m")
    return load(tmp_path / "m", dtype="int8")


def test_a_model_loaded_as_int8(light, tiny_model, tmp_path):
    settings = {"description": "drums rock", "duration_s": 0.4, "seed": 1}
    expected = tiny_model.generate(weights="int8", **settings)
    assert torch.equal(light.generate(**settings).codes, expected.codes)
    assert "context token" in repr(light)
    assert light.to("cpu") is light
    assert light.device.type == "cpu"
    blocks = list(light.stream(**settings))
    assert torch.allclose(torch.cat(blocks, -1), expected.wav, atol=1e-5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, _: m.generate(weights="fp32"), "weights is 'fp32', but this model was loaded"),
        (lambda m, _: m.generate(weights="bf16"), "weights is 'bf16', but this model was loaded"),
        (lambda m, _: forward(m.lm, codes(1, N_Q, 5)), "in int8 only: it can generate"),
        (lambda m, folder: m.save(folder / "n"), "in int8 only.*without dtype='int8'"),
        (lambda m, _: m.to("cuda"), "in int8 only"),
    ],
)
def test_what_an_int8_model_cannot_do(light, tmp_path, act, message):
    with pytest.raises(StageLiteError, match=message):
        act(light, tmp_path)


def test_int8_is_for_cpus(tiny_model):
    with pytest.raises(StageLiteError, match="dtype is 'int8', which is for CPUs"):
        load("nano", device="cuda", dtype="int8")
    with pytest.raises(StageLiteError, match="expected one of .*'int8'"):
        load("nano", dtype="int4")
    tiny_model.lm.emb[0].weight = torch.nn.Parameter(
        torch.empty(18, 32, device="meta"), requires_grad=False
    )
    with pytest.raises(StageLiteError, match="weights is 'int8', which is for CPUs"):
        held_weights(tiny_model.lm, "int8")


def test_a_wrapped_layer_is_not_given_up(lm):
    layer = lm.transformer.layers[0]
    layer.linear1 = torch.nn.Sequential(layer.linear1)
    with pytest.raises(StageLiteError, match=r"0\.linear1 of the layers is no plain matrix"):
        give_up(lm)
    assert generate_codes(lm, None, "drums", 3, weights="int8").codes.shape == (1, N_Q, 3)


def test_layers_are_converted_one_after_the_other(lm):
    """While a layer is read, those before it have given up theirs and those behind are empty."""
    from stage_lite.interop.build import empty_lm

    config = LMConfig(
        card=CARD, dim=32, num_layers=2, num_heads=2, word_dim=8, context_token=True,
        vocabulary=("drums", "bass", "bossa", "nova"),
    )  # fmt: skip
    light, state, whole = empty_lm(config), lm.state_dict(), []

    def read(name):
        whole.append(sum(not x.linear1.weight.is_meta for x in light.transformer.layers))
        return state[name]

    fill_int8(light, read)
    assert len(whole) == len(state) and max(whole) == 0


# --- the step that a GPU can record --------------------------------------------------------------


@pytest.mark.parametrize("weights", KINDS)
@pytest.mark.parametrize("context", [[CONTEXT, None, codes(N_Q, 4, seed=1)], None])
def test_the_fixed_step_is_the_step(lm, weights, context):
    settings = {"seed": 3, "top_k": 5, "weights": weights}
    texts = ["drums", "bass", None]
    plain = generate_codes(lm, context, texts, 12, **settings).codes
    assert torch.equal(generate_codes(lm, context, texts, 12, graph=True, **settings).codes, plain)


def test_a_recorded_step_can_be_replayed_anywhere(lm):
    """As a CUDA graph does it: the calls of one position, traced, then run at all others."""
    target = codes(2, N_Q, 12, seed=3)
    prefix = build_prefix([CONTEXT, None], target, special_token_id=CARD, context_token_id=CARD + 1)
    encoded, _ = encode_text(lm, ["drums bossa"])
    texts, sequence = [encoded[0], None], prefix.sequence
    plain, fixed = Decoder(lm, prefix, texts), Decoder(lm, prefix, texts, graph=True)
    first = plain.prefill(sequence[:, :, :12])
    assert torch.equal(fixed.prefill(sequence[:, :, :12]), first)
    with torch.inference_mode():
        # other codes at another place; tracing runs nothing that step 12 does not overwrite
        record = make_fx(lambda c, at: fixed.fixed.run(c, at), tracing_mode="real")(
            torch.zeros(2, N_Q, dtype=torch.long), torch.tensor([12])
        )
        for at in range(12, sequence.shape[2]):
            expected = plain.step(sequence[:, :, at])
            replayed = record(sequence[:, :, at], torch.tensor([at]))
            torch.testing.assert_close(replayed, expected, rtol=0, atol=1e-5)
