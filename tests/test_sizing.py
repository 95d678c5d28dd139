"""Paper against the models themselves: what is counted is what is there."""

import dataclasses

import pytest
import torch

import stage_lite as sl
from stage_lite import memory, sizing
from stage_lite.decoder import Decoder
from stage_lite.held_weights import held_weights
from stage_lite.interop.t5 import make_reader
from stage_lite.text import encode_text

SIZES = {"card": 16, "dim": 64, "num_layers": 3, "num_heads": 2, "vocabulary": ("drums", "bass")}


@pytest.mark.parametrize("more", [{}, {"context_token": True}, {"context_encoder": 8}])
def test_an_outline_has_the_models_parameters(more):
    config = sl.LMConfig(**SIZES, **more)
    lm = sizing.outline(config)
    built = sl.build_lm(config, seed=0)
    count = sum(p.numel() for p in built.parameters())
    assert all(p.is_meta for p in lm.parameters())
    assert sum(sizing.parameters(lm).values()) == count
    assert sizing.parameters(lm) == sizing.parameters(built)
    assert sizing.parameters(lm)["self-attention"] == 3 * 4 * 64**2
    assert sizing.parameters(lm)["feed-forward"] == 3 * 8 * 64**2


def test_musicgens_sizes():
    """The published ones: files of 1.68, 7.36 and 13.03 GB in fp32 (interop/hub.py)."""
    from stage_lite.interop.hub import MUSICGEN

    for name, (_, published) in MUSICGEN.items():
        lm = sizing.outline(sizing.MUSICGEN[name])
        assert sum(sizing.parameters(lm).values()) * 4 == pytest.approx(published, rel=2e-3)
    small, stage = (
        sum(sizing.parameters(sizing.outline(sizing.MUSICGEN[n])).values())
        for n in ("facebook/musicgen-small", "stage-drums")
    )
    assert stage - small == 4 * 1024  # the added row of each table


def test_the_t5s_size():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12
    )
    with torch.device("meta"):
        encoder = T5EncoderModel(config)
    assert sum(p.numel() for p in encoder.parameters()) == sizing.T5_BASE
    assert make_reader("t5-base", 1024, dim=768).dim == 768


def held_bytes(w):
    """Of every matrix that a decoder holds, by its own memory; a transposed view counts once."""
    layers = [getattr(layer, f.name) for layer in w.layers for f in dataclasses.fields(layer)]
    tensors = {
        (x.data_ptr(), x.numel()): x.nbytes
        for thing in [w.heads, *layers]
        for x in getattr(thing, "__dict__", {}).values()
        if isinstance(x, torch.Tensor)
    }
    return sum(tensors.values())


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_bytes_are_those_that_are_held(weights):
    lm = sl.build_lm(sl.LMConfig(**SIZES), seed=0)
    matrices = sum(p.numel() for n, p in lm.named_parameters() if sizing._is_matrix(n, p))
    others = sum(p.numel() for p in lm.parameters()) - matrices
    assert held_bytes(held_weights(lm, weights)) == matrices * (4 if weights == "fp32" else 2)
    size = 4 if weights == "fp32" else 2
    assert sizing.weight_bytes(lm, weights) == matrices * size + 4 * others
    # all but keys and values of the text: 2 of the 16 dim^2 of a layer
    assert sizing.step_bytes(lm, weights) == (matrices - 3 * 2 * 64**2) * size


def test_int8_is_a_quarter_and_its_scales():
    lm = sizing.outline(sizing.MUSICGEN["facebook/musicgen-small"])
    fp32, int8 = (sizing.step_bytes(lm, w) for w in ("fp32", "int8"))
    assert 0.25 < int8 / fp32 < 0.252


def test_the_cache_is_the_decoders():
    lm = sl.build_lm(sl.LMConfig(**SIZES), seed=0)
    codes = torch.zeros(2, 4, 9, dtype=torch.long)
    prefix = sl.build_prefix(None, codes, special_token_id=16, context_token_id=17)
    text, _ = encode_text(lm, ["drums", "bass"])
    decoder = Decoder(lm, prefix, list(text))
    assert sizing.kv_bytes(lm, 2, prefix.sequence.shape[2], 4) == decoder.cache_bytes


def test_bounds_move_as_they_should():
    lm = {n: sizing.outline(c) for n, c in sizing.MUSICGEN.items()}
    small, large = lm["facebook/musicgen-small"], lm["facebook/musicgen-large"]
    t4, a100, cpu = sizing.MACHINES.values()
    paper = sizing.generation_on_paper
    for machine in (t4, a100, cpu):
        fp32, half = paper(small, machine, "fp32"), paper(small, machine, machine.half)
        most = 2.2 if machine is cpu else 2.01  # a CPU holds the cache in bytes then: step_cache
        assert 1 < half.steps_per_s / fp32.steps_per_s <= most and half.needed < fp32.needed
        assert paper(large, machine, machine.half).steps_per_s < half.steps_per_s
    assert not paper(large, t4, "fp32", duration_s=60).fits and paper(large, t4, "fp16").fits
    # bound by reading: steps a second are bandwidth over bytes, cache included
    short = paper(small, cpu, "fp32", context_s=0.02, duration_s=0.02)
    assert short.steps_per_s == pytest.approx(
        cpu.bandwidth / sizing.step_bytes(small, "fp32"), rel=0.01
    )
    assert paper(small, t4, "fp16", duration_s=20).seconds > paper(small, t4, "fp16").seconds


def test_training_counts_what_the_check_before_training_counts():
    lm = sizing.outline(sizing.MUSICGEN["stage-drums"])
    settings = {"rows": 2, "accumulation": 4, "steps": 100}
    plan = sizing.training_on_paper(lm, sizing.MACHINES["A100"], **settings)
    count = sum(p.numel() for p in lm.parameters())
    rest = plan.needed - memory.training_bytes(lm, 2, 1005, half=True) - 4 * count
    assert rest == pytest.approx(4 * (sizing.CODEC + sizing.T5_BASE) + sizing.PROGRAM)
    assert plan.seconds == pytest.approx(100 / plan.steps_per_s)
    again = sizing.training_on_paper(lm, sizing.MACHINES["A100"], recompute=True, **settings)
    assert again.needed < plan.needed and again.seconds == pytest.approx(plan.seconds * 4 / 3)
