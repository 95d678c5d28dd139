"""codec.py: audiocraft's EnCodec in MusicGen's geometry, chunks, bad input, the cache."""

import inspect

import numpy as np
import pytest
import torch

from stage_lite.codec import (
    CodeCache,
    CodecConfig,
    build_codec,
    decode,
    encode,
    load_codec,
    n_frames,
    restart_dead_codes,
    save_codec,
)
from stage_lite.errors import StageLiteError

TINY = CodecConfig(n_filters_encoder=2, n_filters_decoder=3, dimension=8, card=16)


@pytest.fixture(scope="module")
def codec():
    codec = build_codec(TINY, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in codec.quantizer.vq.layers:  # as if k-means had run
        layer._codebook.embed.copy_(torch.randn(16, 8, generator=generator) * 0.1)
        layer._codebook.inited.fill_(1)
    return codec


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_default_geometry_is_musicgens():
    config = CodecConfig()
    assert (config.hop_length, config.frame_rate, config.n_q) == (640, 50.0, 4)


def test_is_audiocrafts_own_class(codec):
    assert type(codec).__module__ == "audiocraft.models.encodec"
    assert (codec.sample_rate, codec.frame_rate, codec.channels) == (32000, 50.0, 1)
    assert (codec.cardinality, codec.num_codebooks, codec.renormalize) == (16, 4, False)
    assert any(name.endswith("weight_g") for name in codec.state_dict())


def test_seed_gives_the_weights_and_leaves_the_global_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (build_codec(TINY, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("length, frames", [(1, 1), (639, 1), (640, 1), (641, 2), (6400, 10)])
def test_lengths_are_whole_frames_padded_on_the_right(codec, length, frames):
    wav = noise(2, 1, length)
    codes = encode(codec, wav)
    assert codes.shape == (2, 4, frames) and codes.dtype == torch.int64
    assert n_frames(codec, length) == frames
    padded = torch.nn.functional.pad(wav, (0, frames * 640 - length))
    assert torch.equal(codes, encode(codec, padded))
    assert decode(codec, codes).shape == (2, 1, frames * 640)


def test_equals_audiocrafts_encode_and_decode(codec):
    wav = noise(1, 1, 640 * 20)
    codes = encode(codec, wav)
    with torch.no_grad():
        assert torch.equal(codes, codec.encode(wav)[0])
        assert torch.equal(decode(codec, codes), codec.decode(codes))


def test_chunked_equals_whole(codec):
    wav = noise(1, 1, 640 * 130 + 5)
    codes = encode(codec, wav, chunk_s=None)
    assert codes.unique().numel() > 4
    assert torch.equal(codes, encode(codec, wav, chunk_s=0.5))
    whole = decode(codec, codes, chunk_s=None)
    assert torch.allclose(whole, decode(codec, codes, chunk_s=0.5), atol=1e-6)


def test_fewer_codebooks_and_no_frames_decode(codec):
    codes = encode(codec, noise(1, 1, 6400))
    assert decode(codec, codes[:, :2]).shape == (1, 1, 6400)
    assert decode(codec, codes[..., :0]).shape == (1, 1, 0)


def test_silence_encodes(codec):
    assert encode(codec, torch.zeros(1, 1, 3200)).shape == (1, 4, 5)


@pytest.mark.parametrize(
    "wav, message",
    [
        (torch.zeros(1, 640), r"shape \(1, 640\); expected \[B, C, L\]"),
        (torch.zeros(1, 2, 640), "C = 1"),
        (torch.zeros(1, 1, 0), "L >= 1"),
        (torch.full((1, 1, 640), float("nan")), "NaN or infinite"),
        (torch.full((1, 1, 640), float("inf")), "NaN or infinite"),
    ],
)
def test_encode_refuses(codec, wav, message):
    with pytest.raises(StageLiteError, match=message):
        inspect.unwrap(encode)(codec, wav)  # without the test run's own shape checks


def test_decode_names_the_first_code_out_of_range(codec):
    codes = torch.zeros(2, 4, 6, dtype=torch.int64)
    codes[1, 2, 3] = 16
    with pytest.raises(
        StageLiteError, match=r"code 16 at batch 1, codebook 2, frame 3; .* 0 to 15"
    ):
        decode(codec, codes)
    with pytest.raises(StageLiteError, match=r"expected \[B, K, T\] with K from 1 to 4"):
        decode(codec, torch.zeros(1, 5, 6, dtype=torch.int64))


def test_training_mode_is_refused():
    codec = build_codec(TINY, seed=0).train()
    with pytest.raises(StageLiteError, match="training mode"):
        encode(codec, torch.zeros(1, 1, 640))


def test_save_and_load_are_equal(codec, tmp_path):
    save_codec(codec, TINY, tmp_path)
    loaded, config = load_codec(tmp_path)
    assert config == TINY
    wav = noise(1, 1, 6400)
    assert torch.equal(encode(codec, wav), encode(loaded, wav))
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*"))


def test_broken_codec_folders_are_named(codec, tmp_path):
    with pytest.raises(StageLiteError, match=r"config.json is missing"):
        load_codec(tmp_path)
    save_codec(codec, TINY, tmp_path)
    weights = tmp_path / "codec.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageLiteError, match="broken or cut short"):
        load_codec(tmp_path)
    save_codec(build_codec(CodecConfig(2 * 16000, 1, 2, 3, 12, card=16), 0), TINY, tmp_path)
    with pytest.raises(StageLiteError, match=r"does not fit config.json"):
        load_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"bitrate": 3}')
    with pytest.raises(StageLiteError, match=r"unknown fields \['bitrate'\]"):
        load_codec(tmp_path)


def test_cache_encodes_once_and_notices_changes(codec, tmp_path, monkeypatch):
    import stage_lite.codec as module

    calls = []
    monkeypatch.setattr(module, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k))
    cache, wav = CodeCache(tmp_path / "cache"), noise(1, 6400)
    first = cache(codec, wav)
    assert torch.equal(first, encode(codec, wav[None])[0])
    assert torch.equal(first, cache(codec, wav)) and len(calls) == 1
    assert torch.equal(first, CodeCache(tmp_path / "cache")(codec, wav)) and len(calls) == 1
    cache(codec, wav * 0.5)
    assert len(calls) == 2
    other = build_codec(TINY, seed=9)
    assert cache.key(other, wav) != cache.key(codec, wav)
    with torch.no_grad():
        before = cache.key(other, wav)
        next(other.parameters()).mul_(1.1)
    assert cache.key(other, wav) != before


def test_cache_mends_a_broken_file(codec, tmp_path):
    cache, wav = CodeCache(tmp_path), noise(1, 3200)
    codes = cache(codec, wav)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:40])
    assert torch.equal(cache(codec, wav), codes)
    assert np.load(file)["codes"].shape == (4, 5)


def test_dead_codes_come_back():
    config = CodecConfig(n_filters_encoder=2, n_filters_decoder=2, dimension=4, card=32, decay=0.8)
    codec = build_codec(config, seed=0)
    codec.train()
    generator = torch.Generator().manual_seed(0)

    def used_after(latents, restart):
        for step in range(60):
            codec.quantizer(latents, 50)
            if restart and step % 10 == 0:
                restart_dead_codes(codec, latents, generator=generator)
        codec.eval()
        codes = codec.quantizer.encode(latents)
        codec.train()
        return codes[:, 0].unique().numel()

    codec.quantizer(torch.randn(4, 4, 200, generator=generator), 50)
    moved = torch.randn(4, 4, 200, generator=generator) * 0.05 + 3  # far from every code
    assert used_after(moved, restart=False) <= 3  # audiocraft alone
    assert used_after(moved, restart=True) >= 24
