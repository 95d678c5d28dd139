"""MusicGen of transformers, both ways: equal logits, codes and sound on random weights."""

import json

import musicgen_peers as peers
import pytest
import torch

import stage_lite as sl
from stage_lite import codec as codec_file
from stage_lite.interop.build import empty_lm, read_sizes
from stage_lite.interop.names import TRANSFORMERS
from stage_lite.interop.t5 import make_reader
from stage_lite.lm_config import LMConfig
from stage_lite.text import encode_text

GREEDY = {"temperature": 0, "cfg_coef": 3.0, "duration_s": 0.004}  # 16 frames
WORDS = "slow waltz for two hands"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """(folder, transformers' model of it)"""
    folder = tmp_path_factory.mktemp("transformers") / "musicgen-tiny"
    return folder, peers.transformers_musicgen(folder)


@pytest.fixture
def model(theirs):
    return sl.load(theirs[0])


@pytest.fixture(scope="module")
def sequence():
    return torch.randint(0, peers.CARD + 1, (2, peers.N_Q, 11), generator=torch.Generator())


def logits_of(theirs, sequence, text):
    """transformers' logits of a sequence with one description."""
    from transformers import MusicgenProcessor

    folder, their_model = theirs
    words = MusicgenProcessor.from_pretrained(folder)(text=[text] * 2, return_tensors="pt")
    with torch.no_grad():
        out = their_model(**words, decoder_input_ids=sequence.reshape(2 * peers.N_Q, -1)).logits
    return out.reshape(2, peers.N_Q, -1, peers.CARD)


def test_logits_are_theirs(theirs, model, sequence):
    text, mask = encode_text(model.lm, [WORDS, WORDS])
    ours = sl.forward(model.lm, sequence, text=text, text_mask=mask)
    expected = logits_of(theirs, sequence, WORDS)
    assert expected.abs().max() > 1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    assert (ours - sl.forward(model.lm, sequence)).abs().max() > 0.1  # the text counts


def test_codec_is_theirs(theirs, model):
    wav = torch.randn(2, 1, 203, generator=torch.Generator().manual_seed(1)) * 0.3
    with torch.no_grad():
        codes = theirs[1].audio_encoder.encode(wav).audio_codes
        decoded = theirs[1].audio_encoder.decode(codes, [None]).audio_values
    assert torch.equal(codec_file.encode(model.codec, wav), codes[0])
    torch.testing.assert_close(codec_file.decode(model.codec, codes[0]), decoded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("description", [WORDS, None])
def test_greedy_codes_and_sound_are_theirs(theirs, model, description):
    from transformers import MusicgenProcessor

    out = model.generate(description=description, **GREEDY)
    folder, their_model = theirs
    settings = {"do_sample": False, "max_new_tokens": 16 + peers.N_Q - 1}
    with torch.no_grad():
        if description is None:
            inputs = their_model.get_unconditional_inputs(1)
            wav = their_model.generate(**inputs, **settings)
        else:
            words = MusicgenProcessor.from_pretrained(folder)(text=[WORDS], return_tensors="pt")
            wav = their_model.generate(**words, guidance_scale=3.0, **settings)
    assert out.codes.unique().numel() > 3
    torch.testing.assert_close(out.wav, wav.clamp(-1, 1), rtol=0, atol=1e-5)


def test_there_and_back_is_bit_equal(theirs, model, tmp_path):
    from safetensors.torch import load_file
    from transformers import MusicgenForConditionalGeneration, MusicgenProcessor

    folder = sl.interop.save_transformers(model, tmp_path / "back")
    before = load_file(theirs[0] / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, found = MusicgenForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not found["missing_keys"] and not found["unexpected_keys"]
    words = MusicgenProcessor.from_pretrained(folder)(text=[WORDS], return_tensors="pt")
    with torch.no_grad():
        wav = again.generate(**words, do_sample=False, guidance_scale=3.0, max_new_tokens=19)
    expected = model.generate(description=WORDS, **GREEDY).wav
    torch.testing.assert_close(wav.clamp(-1, 1), expected, rtol=0, atol=1e-5)
    sl.interop.save_transformers(model, folder)  # over itself
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "song.wav").touch()
    with pytest.raises(sl.StageLiteError, match="holds other files"):
        sl.interop.save_transformers(model, tmp_path / "mine")


def test_state_dicts_alone(theirs, sequence):
    state = theirs[1].state_dict()
    lm = sl.interop.lm_from_transformers(state, num_heads=peers.HEADS)
    expected = sl.forward(sl.load(theirs[0]).lm, sequence)
    torch.testing.assert_close(sl.forward(lm, sequence), expected, rtol=0, atol=0)
    assert lm.condition_provider.conditioners["description"].dim == peers.TEXT_DIM
    back = sl.interop.lm_to_transformers(lm)
    assert all(torch.equal(back[name], state[name]) for name in back)
    with torch.no_grad():  # the model holds copies
        lm.emb[0].weight.zero_()
    assert state["decoder.model.decoder.embed_tokens.0.weight"].any()

    inner = theirs[1].decoder.state_dict()  # MusicgenForCausalLM: no text projection
    with pytest.warns(UserWarning, match="descriptions will have no effect"):
        reader = make_reader("t5-base", peers.DIM, dim=peers.TEXT_DIM)
        lm = sl.interop.lm_from_transformers(inner, num_heads=peers.HEADS, t5=reader)
    torch.testing.assert_close(sl.forward(lm, sequence), expected, rtol=0, atol=0)


def test_a_t5_as_wide_as_the_model_has_no_projection(tmp_path, sequence):
    their_model = peers.transformers_musicgen(tmp_path / "same", text_dim=peers.DIM)
    assert not hasattr(their_model, "enc_to_dec_proj")
    model = sl.load(tmp_path / "same")
    text, _ = encode_text(model.lm, [WORDS, WORDS])
    expected = logits_of((tmp_path / "same", their_model), sequence, WORDS)
    torch.testing.assert_close(
        sl.forward(model.lm, sequence, text=text), expected, rtol=0, atol=1e-4
    )
    sl.interop.save_transformers(model, tmp_path / "back")
    with torch.no_grad():
        model.lm.condition_provider.conditioners["description"].output_proj.bias += 1
    with pytest.raises(sl.StageLiteError, match="would be lost"):
        sl.interop.save_transformers(model, tmp_path / "back")


def test_older_files_and_several_files(theirs, model, tmp_path, sequence):
    """Weights split over files; names of a normalised weight and sines as older versions wrote."""
    from safetensors.torch import load_file, save_file

    state = load_file(theirs[0] / "model.safetensors")
    for file in theirs[0].glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    old = {
        n.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for n, v in state.items()
    }
    old["decoder.model.decoder.embed_positions.weights"] = torch.zeros(9, peers.DIM)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(old)}
    for file in set(files.values()):
        save_file({n: v for n, v in old.items() if files[n] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    again = sl.load(tmp_path)
    wav = torch.randn(1, 1, 80, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.encode(wav, 32000), model.encode(wav, 32000))
    assert torch.equal(sl.forward(again.lm, sequence), sl.forward(model.lm, sequence))
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(sl.StageLiteError, match=r"lacks 1 of its 2 weight files.*not finished"):
        sl.load(tmp_path)


def test_the_model_is_a_stage_model(theirs, tmp_path):
    """Saved, loaded, extended, generated from: with its own T5, without a network."""
    model = sl.load(theirs[0])
    expected = model.generate(description=WORDS, **GREEDY).codes
    model.save(tmp_path / "mine")
    again = sl.load(tmp_path / "mine")
    assert torch.equal(again.generate(description=WORDS, **GREEDY).codes, expected)
    assert again.config.lm.t5 == "musicgen-tiny" and not again.lm.training
    sl.extend_embedding(again.lm)
    wav = torch.randn(1, 90, generator=torch.Generator().manual_seed(1)) * 0.3
    out = again.generate(wav, 32000, description=WORDS, **GREEDY)
    assert out.codes.shape == (1, peers.N_Q, 16)
    again.save(tmp_path / "extended")
    third = sl.load(tmp_path / "extended")
    assert torch.equal(third.generate(wav, 32000, WORDS, **GREEDY).codes, out.codes)
    for save, where in (
        (sl.interop.save_transformers, tmp_path / "x"),
        (sl.interop.save_audiocraft, tmp_path / "y"),
    ):
        with pytest.raises(sl.StageLiteError, match="has a context token, which"):
            save(third, where)
        assert not where.exists()


def test_int8_generates_and_is_not_written(theirs, model, tmp_path):
    small = sl.load(theirs[0], dtype="int8")
    assert small.config == model.config
    out = small.generate(description=WORDS, **GREEDY)
    assert out.codes.shape == (1, peers.N_Q, 16)
    with pytest.raises(sl.StageLiteError, match="was loaded as 'int8' and no longer holds"):
        sl.interop.save_transformers(small, tmp_path / "x")


def test_full_size_is_musicgen_small():
    """Every tensor of MusicGen-small in transformers' form, by shape; nothing is allocated."""
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    with torch.device("meta"):
        decoder = MusicgenForCausalLM(MusicgenDecoderConfig())  # its defaults are small
        state = {f"decoder.{n}": v for n, v in decoder.state_dict().items()}
        state["enc_to_dec_proj.weight"] = torch.empty(1024, 768)
        state["enc_to_dec_proj.bias"] = torch.empty(1024)
        reader = make_reader("t5-base", 1024)
    config, names = read_sizes(state, TRANSFORMERS)
    assert config == LMConfig(
        card=2048, dim=1024, num_layers=24, num_heads=16, hidden_scale=4, t5="t5-base"
    )
    lm = empty_lm(config, reader)
    own = {name: tensor.shape for name, tensor in lm.state_dict().items()}
    assert own.keys() == names.keys()
    for name, theirs in names.items():
        assert own[name][0] == sum(state[n].shape[0] for n in theirs)
    assert sum(p.numel() for p in lm.parameters()) == 420_371_456
    assert all(p.is_meta for p in lm.parameters())


def test_what_it_is_not(theirs, tmp_path, tiny_model, tiny_base):
    config = json.loads((theirs[0] / "config.json").read_text())
    weights = (theirs[0] / "model.safetensors").read_bytes()

    def folder(name, **changes):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | changes))
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        return tmp_path / name

    stereo = config["decoder"] | {"audio_channels": 2}
    bart = {"model_type": "bart"}
    for folder_, message in [
        (folder("melody", model_type="musicgen_melody"), "MusicGen-melody, which also listens"),
        (folder("stereo", decoder=stereo), "stereo MusicGen: expected a model of one channel"),
        (folder("gpt", model_type="gpt2"), "a model of type 'gpt2'"),
        (folder("bart", text_encoder=bart), "reads text with 'bart'"),
    ]:
        with pytest.raises(sl.StageLiteError, match=message):
            sl.load(folder_)
    with pytest.raises(sl.StageLiteError, match="reads words from a table of its own"):
        sl.interop.save_transformers(tiny_base, tmp_path / "nano")
    with pytest.raises(sl.StageLiteError, match="has a context token"):
        sl.interop.save_transformers(tiny_model, tmp_path / "tiny")
