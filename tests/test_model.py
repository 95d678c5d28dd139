"""model.py: requests, generations, streams, losses, and folders that come back as they were."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model

import stage_lite as sl
from stage_lite import shipped
from stage_lite.codec import decode
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.lm import forward
from stage_lite.model import load
from stage_lite.prefix import build_prefix, extend_embedding, prefix_loss
from stage_lite.text import encode_text


def noise(channels=1, seconds=0.5, sample_rate=32000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(channels, round(seconds * sample_rate), generator=generator) * 2 - 1) * 0.5


def quiet(model, **arguments):
    """generate with the warnings of over-long requests left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(**arguments)


# --- sizes -------------------------------------------------------------------------------------


def test_properties(tiny_model):
    m = tiny_model
    assert (m.sample_rate, m.frame_rate, m.n_q, m.card) == (32000, 50, 4, TINY_CARD)
    assert (m.special_token_id, m.context_token_id) == (TINY_CARD, TINY_CARD + 1)
    assert type(m.lm).__module__ == "audiocraft.models.lm"
    assert type(m.codec).__module__ == "audiocraft.models.encodec"
    assert repr(m) == repr(make_tiny_model()) and "tiny" in repr(m)


def test_lm_and_codec_must_fit(tiny_model):
    from stage_lite.lm_config import LMConfig, build_lm

    lm = build_lm(LMConfig(card=TINY_CARD * 2, dim=32, num_layers=1, num_heads=2))
    with pytest.raises(StageLiteError, match=r"4 codebooks of 32 codes.*4 of 16"):
        sl.StageModel(lm, tiny_model.codec, tiny_model.config)


@pytest.mark.parametrize("sample_rate", [8000, 22050, 32000, 44100, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_encode_takes_any_rate_and_channels(tiny_model, sample_rate, channels):
    codes = tiny_model.encode(noise(channels, 0.25, sample_rate), sample_rate)
    assert codes.shape == (1, 4, 13)  # 12.5 frames
    assert codes.max() < TINY_CARD


def test_encode_ranks_and_arrays_agree(tiny_model):
    wav = noise(seconds=0.3)
    codes = tiny_model.encode(wav, 32000)
    assert torch.equal(codes, tiny_model.encode(wav[0], 32000))
    assert torch.equal(codes, tiny_model.encode(wav.numpy(), 32000))
    assert torch.equal(codes, tiny_model.encode(wav.repeat(3, 1), 32000))
    batch = tiny_model.encode(torch.stack([wav, noise(seconds=0.3, seed=1)]), 32000)
    assert batch.shape[0] == 2 and torch.equal(batch[:1], codes)


def test_decode_is_clipped_and_exact_in_length(tiny_model):
    codes = torch.randint(0, TINY_CARD, (2, 4, 7))
    wav = tiny_model.decode(codes)
    assert wav.shape == (2, 1, 7 * 640)
    assert torch.equal(wav, decode(tiny_model.codec, codes).clamp(-1, 1))


# --- generate ----------------------------------------------------------------------------------


def test_generate_says_what_it_made(tiny_model):
    out = tiny_model.generate(noise(), 32000, "drums, rock", 0.4, seed=3)
    assert out.wav.shape == (1, 1, 12800) and out.codes.shape == (1, 4, 20)
    assert out.sample_rate == 32000 and out.duration_s == 0.4 and out.seconds_per_step > 0
    assert out.codes.max() < TINY_CARD and out.wav.abs().max() <= 1
    assert repr(out) == "Generation(0.40 s at 32000 Hz, 20 frames)"
    assert out.descriptions == ("drums, rock",) and len(out) == 1
    # the sequence is the prefix of the context's codes and of what was generated
    prefix = build_prefix(
        tiny_model.encode(noise(), 32000), out.codes, special_token_id=TINY_CARD,
        context_token_id=TINY_CARD + 1,
    )  # fmt: skip
    assert torch.equal(out.sequence, prefix.sequence)
    assert torch.equal(out.prefix.positions, prefix.positions)


def test_same_seed_same_codes_and_no_global_state(tiny_model):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    arguments = {"context": noise(), "context_sample_rate": 32000, "duration_s": 0.4}
    one, two, other = (tiny_model.generate(**arguments, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.codes, two.codes) and torch.equal(one.wav, two.wav)
    assert not torch.equal(one.codes, other.codes)
    assert torch.equal(before, torch.get_rng_state())


def test_default_duration_is_the_trained_one(tiny_model):
    assert tiny_model.generate(seed=0).duration_s == 1.0


def test_context_and_words_are_heard(tiny_model):
    """Greedy output changes with the context, with its absence and with the words."""
    greedy = {"duration_s": 0.4, "temperature": 0.0}
    outs = [
        tiny_model.generate(noise(seed=0), 32000, "drums", **greedy),
        tiny_model.generate(noise(seed=1), 32000, "drums", **greedy),
        tiny_model.generate(None, None, "drums", **greedy),
        tiny_model.generate(noise(seed=0), 32000, "bossa nova", **greedy),
    ]
    for i, one in enumerate(outs):
        for other in outs[:i]:
            assert not torch.equal(one.codes, other.codes)


@pytest.mark.parametrize("anchor_frames", [None, 50, -1, -2])
def test_batch_rows_equal_single_runs(anchor_frames):
    """Contexts of different length, one of them missing: greedy rows are what they are alone."""
    model = make_tiny_model(anchor_frames=anchor_frames)
    contexts = [noise(seconds=0.5), noise(2, 0.2, 44100, seed=1), None]
    rates, words = [32000, 44100, None], ["drums", None, "bass, rock"]
    settings = {"duration_s": 0.3, "temperature": 0.0}
    batch = model.generate(contexts, rates, words, **settings)
    assert len(batch) == 3
    for b in range(3):
        alone = model.generate(contexts[b], rates[b], words[b], **settings)
        assert torch.equal(batch.codes[b], alone.codes[0])


def test_one_context_serves_many_descriptions(tiny_model):
    settings = {"duration_s": 0.2, "temperature": 0.0}
    batch = tiny_model.generate(noise(), 32000, ["drums", "bass"], **settings)
    for b, words in enumerate(["drums", "bass"]):
        alone = tiny_model.generate(noise(), 32000, words, **settings)
        assert torch.equal(batch.codes[b], alone.codes[0])
    three = torch.stack([noise(seed=s) for s in range(3)])
    assert len(tiny_model.generate(three, 32000, "drums", 0.1, seed=0)) == 3


def test_prompt_is_continued(tiny_model):
    first = tiny_model.generate(noise(), 32000, duration_s=0.2, seed=0)
    for prompt, rate in ((first.codes, None), (first.codes[0], None), (first.wav[0], 32000)):
        out = tiny_model.generate(
            noise(), 32000, duration_s=0.4, seed=1, prompt=prompt, prompt_sample_rate=rate
        )
        assert out.codes.shape[-1] == 20
        expected = first.codes if rate is None else tiny_model.encode(first.wav[0], 32000)
        assert torch.equal(out.codes[..., :10], expected)


def test_long_context_is_cut_with_a_warning():
    model = make_tiny_model(trained_s=0.5)
    long = noise(seconds=3.0, sample_rate=44100)
    with pytest.warns(UserWarning, match=r"context is 3\.00 s long: its first 0\.5 s are"):
        out = model.generate(long, 44100, duration_s=0.2, temperature=0.0)
    assert out.prefix.target_start == 25 + 1 + 1  # context, token, delay


def test_anchor_sets_the_longest_context():
    model = make_tiny_model(anchor_frames=10)
    out = quiet(model, context=noise(), context_sample_rate=32000, duration_s=0.2)
    assert out.prefix.target_start == 10 + 1 + 1


def test_ten_minutes_of_context_are_fine(tiny_model):
    long = torch.zeros(1, 600 * 8000)
    long[:, ::50] = 0.3
    with pytest.warns(UserWarning, match="600.00 s long"):
        assert tiny_model.generate(long, 8000, duration_s=0.1, seed=0).duration_s == 0.1


def test_one_sample_of_context_is_one_frame(tiny_model):
    out = tiny_model.generate(torch.tensor([[0.5]]), 32000, duration_s=0.1, seed=0)
    assert out.prefix.target_start == 1 + 1 + 1


def test_integers_are_scaled(tiny_model):
    wav = noise()
    integers = (wav * 32767).round().to(torch.int16)
    settings = {"duration_s": 0.2, "temperature": 0.0}
    one = tiny_model.generate(integers, 32000, **settings)
    two = tiny_model.generate(integers.float() / 32768, 32000, **settings)
    assert torch.equal(one.codes, two.codes)


def test_silence_warns(tiny_model):
    with pytest.warns(UserWarning, match="context is silent"):
        tiny_model.generate(torch.zeros(1, 3200), 32000, duration_s=0.1, seed=0)


def test_past_the_trained_length_warns(tiny_model):
    with pytest.warns(UserWarning, match="trained on 1 s"):
        assert tiny_model.generate(duration_s=1.2, seed=0).duration_s == 1.2


def test_ten_thousand_characters_of_text_warn(tiny_model):
    text = ("drums rock " * 1000)[:10_000]
    settings = {"duration_s": 0.1, "temperature": 0.0}
    with pytest.warns(UserWarning, match="first 64"):
        long = tiny_model.generate(description=text, **settings)
    short = tiny_model.generate(description=" ".join(text.split()[:64]), **settings)
    assert torch.equal(long.codes, short.codes)


def test_progress_reaches_the_end(tiny_model):
    seen = []
    tiny_model.generate(
        duration_s=0.2, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen and seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


NAN, INFINITE = torch.full((1, 640), math.nan), torch.full((1, 640), math.inf)
WAV = noise(seconds=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": NAN, "context_sample_rate": 32000}, r"context has NaN or infinite"),
        ({"context": INFINITE, "context_sample_rate": 32000}, r"context has NaN or infinite"),
        ({"context": torch.zeros(1, 0), "context_sample_rate": 32000}, r"context has 0 samples"),
        ({"context": [WAV, NAN], "context_sample_rate": 32000}, r"context 1 has NaN"),
        ({"context": WAV}, r"without a sample rate.*context_sample_rate"),
        ({"context": WAV, "context_sample_rate": 7999}, r"sample rate 7999"),
        ({"context": WAV, "context_sample_rate": 400_000}, r"sample rate 400000"),
        ({"context": WAV.expand(9, -1), "context_sample_rate": 32000}, r"9 channels"),
        ({"context": "mix.wav", "context_sample_rate": 32000}, r"text 'mix.wav'.*load_audio"),
        ({"context": [], "context_sample_rate": 32000}, r"empty list"),
        ({"context": {"a": 1}, "context_sample_rate": 32000}, r"context"),
        ({"context": [WAV] * 2, "context_sample_rate": [32000] * 3}, r"3 values for 2 contexts"),
        ({"context": [WAV] * 2, "context_sample_rate": 32000, "description": ["a"] * 3},
         r"2 contexts and 3 descriptions"),
        ({"description": 7}, r"description is 7"),
        ({"description": []}, r"description is \[\]"),
        ({"description": ["drums", 7]}, r"description holds a int"),
        ({"duration_s": -1.0}, r"duration_s is -1.0; expected seconds from 0.02 to 600"),
        ({"duration_s": 0}, r"duration_s is 0"),
        ({"duration_s": math.nan}, r"duration_s is nan"),
        ({"duration_s": math.inf}, r"duration_s is inf"),
        ({"duration_s": 3600}, r"duration_s is 3600"),
        ({"duration_s": "8"}, r"duration_s is '8'"),
        ({"prompt": WAV}, r"prompt came without a sample rate"),
        ({"prompt": torch.zeros(3, 5, dtype=torch.int64)}, r"shape \(3, 5\).*K = 4"),
        ({"prompt": torch.zeros(4, 50, dtype=torch.int64)}, r"prompt is 1 s long; expected less"),
        ({"prompt": torch.zeros(2, 4, 5, dtype=torch.int64)}, r"prompt has 2 rows"),
        ({"prompt": torch.full((4, 5), 99)}, r"99"),
        ({"weights": "fp8"}, r"weights is 'fp8'; expected one of 'fp32', 'bf16', 'int8'"),
        ({"window_s": 0}, r"window_s is 0; expected seconds from 0.04 on"),
        ({"window_s": "1"}, r"window_s is '1'"),
        ({"stride_s": 1.0}, r"stride_s is 1; expected seconds below the 1 of a window"),
        ({"stride_s": 0.0}, r"stride_s is 0.0; expected seconds from 0.02"),
        ({"temperature": -1.0}, r"temperature"),
        ({"top_k": -1}, r"top_k"),
        ({"cfg_over": "words"}, r"cfg_over"),
    ],
)  # fmt: skip
def test_bad_requests_get_one_sentence(tiny_model, unchecked_types, arguments, message):
    with pytest.raises(StageLiteError, match=message):
        tiny_model.generate(**arguments)


def test_a_model_without_context_token_says_so(tiny_base):
    with pytest.raises(StageLiteError, match=r"'tiny' has no context token.*'nano'"):
        tiny_base.generate(noise(), 32000)
    assert tiny_base.generate(None, None, "drums", 0.1, seed=0).duration_s == 0.1
    assert tiny_base.generate([None], None, "drums", 0.1, seed=0).duration_s == 0.1


# --- generations -------------------------------------------------------------------------------


def test_save_writes_one_file_or_one_per_row(tiny_model, tmp_path):
    out = tiny_model.generate(description=["drums", "bass"], duration_s=0.1, seed=0)
    files = out.save(tmp_path / "new" / "stem.flac")
    assert [f.name for f in files] == ["stem-0.flac", "stem-1.flac"]
    wav, sample_rate = sl.load_audio(files[1])
    assert sample_rate == 32000
    assert torch.allclose(wav, out.wav[1], atol=1 / 32768)
    one = tiny_model.generate(duration_s=0.1, seed=0)
    assert one.save(tmp_path / "one.wav") == [tmp_path / "one.wav"]
    with pytest.raises(StageLiteError, match="unknown suffix"):
        one.save(tmp_path / "one.mp4")


def test_play_is_a_player(tiny_model):
    audio = tiny_model.generate(duration_s=0.1, seed=0).play()
    assert audio._repr_html_().lstrip().startswith("<audio")


# --- stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_s", [0.1, 0.26, 5.0])
def test_stream_is_generate_in_blocks(tiny_model, block_s):
    request = {
        "context": noise(),
        "context_sample_rate": 32000,
        "description": "drums",
        "duration_s": 1.0,
    }
    whole = tiny_model.generate(**request, seed=5)
    blocks = list(tiny_model.stream(**request, seed=5, block_s=block_s))
    assert len(blocks) == math.ceil(1.0 / block_s)
    assert all(block.shape[-1] == round(min(block_s, 1.0) * 32000) for block in blocks[:-1])
    together = torch.cat(blocks, dim=-1)
    assert together.shape == whole.wav.shape
    assert (together - whole.wav).abs().max() < 1e-4


def test_stream_gives_blocks_before_the_end(tiny_model):
    steps = []
    stream = tiny_model.stream(
        duration_s=1.0, seed=0, block_s=0.1, progress=lambda done, total: steps.append(done / total)
    )
    first = next(stream)
    assert first.shape == (1, 1, 3200)
    assert not steps or steps[-1] < 0.6
    stream.close()


def test_stream_checks_before_the_first_block(tiny_model):
    with pytest.raises(StageLiteError, match="duration_s"):
        tiny_model.stream(duration_s=-1)
    with pytest.raises(StageLiteError, match="block_s is 0"):
        tiny_model.stream(block_s=0)


# --- loss --------------------------------------------------------------------------------------


def example(context=None, target=None, **others):
    defaults = {
        "description": "drums", "beat_times": np.zeros(0), "downbeat_times": np.zeros(0),
        "song_id": "song", "start_s": 0.0, "duration_s": 0.5, "condition": "mixture",
    }  # fmt: skip
    return Example(context=context, target=target, **(defaults | others))


def test_loss_is_prefix_loss_of_forward(tiny_model):
    m = tiny_model
    context, target = noise(seconds=0.3, seed=1), noise(seconds=0.5, seed=2)
    loss, per_codebook = m.loss([example(context, target)])
    prefix = build_prefix(
        m.encode(context, 32000), m.encode(target, 32000),
        special_token_id=m.special_token_id, context_token_id=m.context_token_id,
    )  # fmt: skip
    text, text_mask = encode_text(m.lm, ["drums"])
    logits = forward(
        m.lm, prefix.sequence, prefix.attention_mask, prefix.positions, text, text_mask
    )
    expected, expected_each = prefix_loss(logits, prefix)
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.allclose(per_codebook, expected_each, atol=1e-5)
    loss.backward()
    assert m.lm.emb[0].weight.grad[m.context_token_id].abs().sum() > 0


def test_loss_takes_audio_or_codes(tiny_model):
    context, target = noise(seconds=0.3, seed=1), noise(seconds=0.5, seed=2)
    codes = {
        "context_codes": tiny_model.encode(context, 32000)[0],
        "target_codes": tiny_model.encode(target, 32000)[0],
    }
    one, _ = tiny_model.loss([example(context, target)])
    two, _ = tiny_model.loss([example(**codes)])
    assert torch.equal(one, two)


def test_loss_of_unequal_targets_counts_real_codes_only(tiny_model):
    short, long = example(None, noise(seconds=0.2)), example(None, noise(seconds=0.5, seed=1))
    _, both = tiny_model.loss([short, long])
    _, one = tiny_model.loss([short])
    _, two = tiny_model.loss([long])
    assert torch.allclose(both, (one * 10 + two * 25) / 35, atol=1e-5)


def test_loss_needs_examples_with_targets(tiny_model, tiny_base):
    with pytest.raises(StageLiteError, match="no examples"):
        tiny_model.loss([])
    with pytest.raises(StageLiteError, match="neither target nor target_codes"):
        tiny_model.loss([example()])
    with pytest.raises(StageLiteError, match="no context token"):
        tiny_base.loss([example(noise(), noise())])


# --- folders -----------------------------------------------------------------------------------


def states_equal(one, two):
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("anchor_frames", [None, 50, -1, -2])
def test_saved_model_comes_back_bit_equal(tmp_path, anchor_frames):
    model = make_tiny_model(anchor_frames=anchor_frames, seed=3)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.config == model.config
    assert states_equal(again.lm, model.lm) and states_equal(again.codec, model.codec)
    request = {"context": noise(), "context_sample_rate": 32000, "description": "bass", "seed": 1}
    assert torch.equal(again.generate(**request).wav, model.generate(**request).wav)
    assert not list(tmp_path.rglob("*.part*"))
    modes = {file.stat().st_mode for file in (tmp_path / "m").rglob("*") if file.is_file()}
    assert len(modes) == 1, "some file has other rights than a new file has"


def test_an_extended_model_survives(tiny_base, tmp_path):
    extend_embedding(tiny_base.lm, init="kaiming", seed=1)
    again = load(tiny_base.save(tmp_path / "m"))
    assert again.config.lm.context_token
    assert states_equal(again.lm, tiny_base.lm)
    with pytest.raises(StageLiteError, match="already"):
        extend_embedding(again.lm)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_files_load_as_fp32(tiny_model, tmp_path, dtype):
    tiny_model.save(tmp_path / "m", dtype=dtype)
    tiny_model.save(tmp_path / "full")
    small, full = (tmp_path / n / "lm.safetensors" for n in ("m", "full"))
    assert small.stat().st_size < 0.65 * full.stat().st_size
    again = load(tmp_path / "m")
    assert all(p.dtype == torch.float32 for p in again.lm.parameters())
    for a, b in zip(again.lm.parameters(), tiny_model.lm.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-4)
    with pytest.raises(StageLiteError, match="dtype is 'int4'"):
        tiny_model.save(tmp_path / "n", dtype="int4")


def test_a_shared_codec_is_found_and_guarded(tiny_model, tmp_path):
    from stage_lite.codec import save_codec

    with pytest.raises(StageLiteError, match=r"codec.safetensors is missing"):
        tiny_model.save(tmp_path / "a", codec_folder="../shared")
    assert not (tmp_path / "a").exists()
    save_codec(tiny_model.codec, tiny_model.config.codec, tmp_path / "shared")
    tiny_model.save(tmp_path / "a", codec_folder="../shared")
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["config.json", "lm.safetensors"]
    assert states_equal(load(tmp_path / "a").codec, tiny_model.codec)
    other = make_tiny_model(seed=9)
    save_codec(other.codec, other.config.codec, tmp_path / "shared")
    with pytest.raises(StageLiteError, match=r"codec.safetensors is not the file"):
        load(tmp_path / "a")


def test_saving_over_a_model_replaces_it(tiny_model, tmp_path):
    tiny_model.save(tmp_path / "m")
    other = make_tiny_model(seed=4)
    other.save(tmp_path / "m")
    assert states_equal(load(tmp_path / "m").lm, other.lm)


def test_an_interrupted_save_is_found_out(tiny_model, tmp_path, monkeypatch):
    """Killed between the weights and config.json: never a mixture that loads."""
    from stage_lite import model as model_file

    tiny_model.save(tmp_path / "old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_file, "write_atomic", stop)
    for folder in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            make_tiny_model(seed=5).save(tmp_path / folder)
    with pytest.raises(StageLiteError, match="is not the file that config.json was written with"):
        load(tmp_path / "old")
    with pytest.raises(StageLiteError, match=r"holds no config.json"):
        load(tmp_path / "new")


def test_a_file_in_the_way(tiny_model, tmp_path):
    (tmp_path / "m").write_text("here")
    with pytest.raises(StageLiteError, match="is a file; expected a folder"):
        tiny_model.save(tmp_path / "m")


@pytest.fixture
def saved(tiny_model, tmp_path):
    return tiny_model.save(tmp_path / "m")


def without_digests(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))


def change(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


def test_weights_cut_short(saved):
    file = saved / "lm.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StageLiteError, match=r"lm.safetensors is not the file.*cut short"):
        load(saved)
    without_digests(saved)
    with pytest.raises(StageLiteError, match=r"lm.safetensors is cut short or no safetensors"):
        load(saved)


def test_weights_of_another_shape_or_name(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    without_digests(saved)
    state = load_file(saved / "lm.safetensors")
    save_file(state | {"out_norm.weight": torch.ones(7)}, saved / "lm.safetensors")
    with pytest.raises(StageLiteError, match=r"out_norm.weight has shape \[7\]; expected \[32\]"):
        load(saved)
    save_file(state | {"extra": torch.ones(7)}, saved / "lm.safetensors")
    with pytest.raises(StageLiteError, match=r"1 tensors that config.json does not.*'extra'"):
        load(saved)
    del state["out_norm.weight"]
    save_file(state, saved / "lm.safetensors")
    with pytest.raises(StageLiteError, match=r"has no tensor 'out_norm.weight'"):
        load(saved)


def test_a_pickle_is_never_read(saved):
    without_digests(saved)
    torch.save({"out_norm.weight": torch.ones(32)}, saved / "lm.safetensors")
    with pytest.raises(StageLiteError, match="never read"):
        load(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 99}, r"format 1"),
        ({"lm": {"dim": 33, "vocabulary": []}}, r"LMConfig.dim is 33"),
        ({"lm": {"width": 32, "vocabulary": []}}, r"does not describe a model.*width"),
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"codec_folder": "nowhere"}, r"no codec in"),
    ],
)
def test_config_that_does_not_fit(saved, fields, message):
    without_digests(saved)
    change(saved, **fields)
    with pytest.raises(StageLiteError, match=message):
        load(saved)


def test_config_that_is_no_json(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(StageLiteError, match="is not JSON"):
        load(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(StageLiteError, match="holds a list"):
        load(saved)


def test_names_that_are_not_there(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr(shipped, "PRETRAINED", tmp_path)
    tiny_model.save(tmp_path / "nano")
    with pytest.raises(StageLiteError, match=r"no model 'nanno'; expected one of \['nano'\]"):
        load("nanno")
    assert load("nano").config.name == "tiny"
    with pytest.raises(StageLiteError, match=r"could not download .* of facebook/musicgen-small"):
        load("facebook/musicgen-small")
    with pytest.raises(StageLiteError, match=r"no checkpoint of the official STAGE.*nano'\)"):
        load(tmp_path / "nano" / "lm.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        StageLiteError, match=r"holds no config.json and no lm.safetensors, but nothing"
    ):
        load(tmp_path / "empty")


def test_every_shipped_model_loads():
    names = shipped.shipped_models()
    if not names:
        pytest.skip("no trained model in this clone yet")
    for name in names:
        model = load(name)
        assert model.config.name == name
        out = model.generate(description="drums, rock", duration_s=0.2, seed=0)
        assert torch.isfinite(out.wav).all()
