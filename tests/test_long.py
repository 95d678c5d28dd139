"""Past the trained length: windows that go on from one another, at the memory of one."""

import gc
import weakref

import pytest
import torch

import stage_lite.generate as generate_file
from stage_lite.codec import CodecConfig, build_codec, decode, encode
from stage_lite.decoder import Decoder
from stage_lite.errors import StageLiteError
from stage_lite.generate import generate_codes, plan_windows, stream_codes

CARD, N_Q = 16, 4


def codes(*shape, seed=0):
    return torch.randint(0, CARD, shape, generator=torch.Generator().manual_seed(seed))


CONTEXT = codes(N_Q, 40)
WINDOWS = {"window_frames": 10, "stride_frames": 6}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((8, 0, None, None), [(0, 0, 8)]),
        ((8, 0, 10, None), [(0, 0, 8)]),
        ((8, 8, 10, None), []),
        ((25, 0, 10, 6), [(0, 0, 10), (6, 10, 16), (12, 16, 22), (18, 22, 25)]),
        ((20, 0, 10, None), [(0, 0, 10), (5, 10, 15), (10, 15, 20)]),
        ((20, 3, 10, 6), [(0, 3, 10), (6, 10, 16), (12, 16, 20)]),
        ((20, 14, 10, 6), [(10, 14, 20)]),  # of a long prompt the end is read
    ],
)
def test_the_plan(arguments, expected):
    assert plan_windows(*arguments) == expected


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        (1, None, "window_frames is 1: expected a whole number from 2 on"),
        (10, 0, "stride_frames is 0: .* less than window_frames = 10"),
        (10, 10, "stride_frames is 10"),
    ],
)
def test_impossible_windows_are_refused(tiny_model, window, stride, message):
    with pytest.raises(StageLiteError, match=message):
        generate_codes(tiny_model.lm, None, None, 20, window_frames=window, stride_frames=stride)


@pytest.mark.parametrize("anchor_frames", [None, -1, 8])
def test_windows_are_generations_one_after_the_other(tiny_model, anchor_frames):
    """Each with the end of the last as its prompt, and the part of the context that sounds then."""
    lm, settings = tiny_model.lm, {"temperature": 0, "anchor_frames": anchor_frames}
    long = generate_codes(lm, [CONTEXT], "drums", 25, **WINDOWS, **settings).codes
    longest = 8 if anchor_frames == 8 else 10
    written = generate_codes(lm, [CONTEXT[:, :longest]], "drums", 10, **settings).codes
    for start, have, end in plan_windows(25, 0, 10, 6)[1:]:
        part = generate_codes(
            lm, [CONTEXT[:, start : start + longest]], "drums", end - start,
            prompt_codes=written[:, :, start:have], **settings,
        ).codes  # fmt: skip
        written = torch.cat([written[:, :, :start], part], dim=2)
    assert torch.equal(long, written)


def test_the_first_window_is_the_short_generation(tiny_model):
    settings = {"seed": 5, "top_k": 8}
    long = generate_codes(tiny_model.lm, [CONTEXT], "drums", 25, **WINDOWS, **settings)
    short = generate_codes(tiny_model.lm, [CONTEXT[:, :10]], "drums", 10, **settings)
    assert torch.equal(long.codes[:, :, :10], short.codes)
    assert long.codes.shape == (1, N_Q, 25)
    assert long.codes.max() < CARD  # no place was left unwritten
    assert torch.equal(long.prefix.sequence, long.sequence)
    assert long.prefix.n_target_frames == 7  # of the last window, 18 to 25


def test_the_context_is_followed_window_by_window(tiny_model):
    other = CONTEXT.clone()
    other[:, 22:] = codes(N_Q, 18, seed=9)  # heard from the third window on, which begins at 12
    settings = {"temperature": 0} | WINDOWS
    one = generate_codes(tiny_model.lm, [CONTEXT], None, 40, **settings).codes
    two = generate_codes(tiny_model.lm, [other], None, 40, **settings).codes
    assert torch.equal(one[:, :, :22], two[:, :, :22])
    assert not torch.equal(one[:, :, 22:], two[:, :, 22:])


def test_a_context_may_end_before_the_music(tiny_model):
    rows = [CONTEXT[:, :13], None, CONTEXT]
    together = generate_codes(tiny_model.lm, rows, ["drums"] * 3, 30, temperature=0, **WINDOWS)
    for b, row in enumerate(rows):
        alone = generate_codes(tiny_model.lm, [row], ["drums"], 30, temperature=0, **WINDOWS)
        assert torch.equal(together.codes[b], alone.codes[0])


def test_memory_does_not_grow(tiny_model, monkeypatch):
    bytes_of, alive = [], []

    class Watched(Decoder):
        def __init__(self, *arguments):
            gc.collect()
            alive.append(sum(ref() is not None for ref in made))
            super().__init__(*arguments)
            made.append(weakref.ref(self))
            bytes_of.append(self.cache_bytes)

    made = []
    monkeypatch.setattr(generate_file, "Decoder", Watched)
    generate_codes(tiny_model.lm, [CONTEXT], "drums", 40, seed=0, **WINDOWS)
    assert len(bytes_of) == 6
    assert max(bytes_of) == bytes_of[0]
    assert alive == [0] * 6  # the window before is gone when the next one comes


@pytest.mark.parametrize("frames_per_chunk", [1, 7])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_a_stream_is_the_whole(tiny_model, frames_per_chunk, weights):
    settings = {"seed": 2, "weights": weights, "prompt_codes": codes(1, N_Q, 3, seed=4)} | WINDOWS
    told = []
    whole = generate_codes(
        tiny_model.lm, [CONTEXT], "drums", 25, **settings,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    parts = list(
        stream_codes(
            tiny_model.lm, [CONTEXT], "drums", 25, frames_per_chunk=frames_per_chunk, **settings
        )
    )
    assert torch.equal(torch.cat(parts, dim=2), whole.codes)
    steps = sum(end - have + N_Q - 1 for _, have, end in plan_windows(25, 3, 10, 6))
    assert told == [(i + 1, steps) for i in range(steps)]


# --- as a user asks for it -----------------------------------------------------------------------


def noise(seconds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, round(seconds * 32000), generator=generator) * 0.2 - 0.1


def test_four_seconds_from_a_model_of_one(tiny_model):
    settings = {"duration_s": 4.0, "seed": 0, "stride_s": 0.6, "description": "drums"}
    with pytest.warns(
        UserWarning, match="written in windows of 1 s, each goes on from the last 0.4"
    ):
        out = tiny_model.generate(noise(4.0), 32000, **settings)
    assert out.duration_s == 4.0
    assert out.prefix.sequence.shape[2] <= 50 + 1 + 50 + N_Q
    # one decoding of all codes: no seam in the sound but those of the codes
    assert torch.equal(out.wav, tiny_model.decode(out.codes))
    with pytest.warns(UserWarning, match="written in windows"):
        blocks = list(tiny_model.stream(noise(4.0), 32000, **settings))
    assert torch.allclose(torch.cat(blocks, -1), out.wav, atol=1e-5)


def test_one_window_if_asked_for(tiny_model):
    with pytest.warns(UserWarning, match="window_s is 2, 'tiny' was trained on 1 s"):
        out = tiny_model.generate(duration_s=2.0, window_s=2.0, temperature=0)
    plain = generate_codes(tiny_model.lm, None, None, 100, temperature=0)
    assert torch.equal(out.codes, plain.codes)


def test_a_context_longer_than_the_music_is_cut(tiny_model):
    with pytest.warns(UserWarning, match=r"context is 3\.00 s long: its first 2 s are used"):
        tiny_model.generate(noise(3.0), 32000, duration_s=2.0, seed=0)


# --- the codec -----------------------------------------------------------------------------------

SMALL = {"n_filters_encoder": 2, "n_filters_decoder": 2, "dimension": 8, "card": CARD}


@pytest.mark.parametrize("lstm", [0, 2])
def test_chunks_are_the_whole(lstm, monkeypatch):
    """Everywhere without an LSTM; with one, which remembers without end, as well as 2 s of what
    stands before and behind allow. Never more than a chunk and its margins at a time."""
    codec = build_codec(CodecConfig(**SMALL, lstm=lstm), seed=0)
    for layer in codec.quantizer.vq.layers:  # as if k-means had run
        layer._codebook.embed.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        layer._codebook.inited.fill_(1)
    wav, widths = noise(12.0)[None], []
    whole = encode(codec, wav, chunk_s=None)
    sound = decode(codec, whole, chunk_s=None)
    run = codec.decoder.forward
    monkeypatch.setattr(codec.decoder, "forward", lambda z: widths.append(z.shape[-1]) or run(z))
    assert torch.equal(encode(codec, wav, chunk_s=2.0), whole)
    assert (decode(codec, whole, chunk_s=2.0) - sound).abs().max() < 1e-4
    assert len(widths) == 6 and max(widths) <= 100 + 2 * (100 if lstm else 12)
