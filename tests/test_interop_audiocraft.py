"""audiocraft's folders, both ways: what its own loaders and its own `generate` say."""

import musicgen_peers as peers
import pytest
import torch

import stage_lite as sl
from stage_lite.interop.torch_file import read_torch_file, write_torch_file
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

GREEDY = {"temperature": 0, "cfg_coef": 3.0, "duration_s": 0.004}
TEXTS = ["slow waltz", "drums, bossa nova for two hands", ""]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A T5 that audiocraft takes by its path, as if by one of its ten names."""
    folder = peers.t5_folder(tmp_path_factory.mktemp("t5") / "t5")
    with peers.known_to_audiocraft(folder) as name:
        yield name


@pytest.fixture(scope="module")
def folder(t5, tmp_path_factory):
    root = tmp_path_factory.mktemp("audiocraft")
    peers.transformers_musicgen(root / "hf", seed=4)
    return sl.interop.save_audiocraft(sl.load(root / "hf"), root / "musicgen-tiny", t5=t5)


@pytest.fixture(scope="module")
def theirs(folder):
    """audiocraft's own MusicGen, by its own loaders."""
    from audiocraft.models import MusicGen

    return MusicGen.get_pretrained(str(folder), device="cpu")


@pytest.fixture
def model(folder):
    return sl.load(folder)


def test_their_loader_reads_the_folder(theirs, model, t5):
    assert theirs.max_duration == model.config.trained_s == 30.0
    assert theirs.sample_rate == model.sample_rate and theirs.frame_rate == model.frame_rate
    assert model.config.name == "musicgen-tiny" and model.config.lm.t5 == t5
    own = model.lm.state_dict()
    assert own.keys() == theirs.lm.state_dict().keys()
    assert all(torch.equal(own[n], v) for n, v in theirs.lm.state_dict().items())
    codec = model.codec.state_dict()
    assert all(torch.equal(codec[n], v) for n, v in theirs.compression_model.state_dict().items())


def test_logits_are_theirs(theirs, model):
    """Batches of texts of several lengths too: audiocraft attends to zeros where words are
    missing."""
    sequence = torch.randint(0, peers.CARD + 1, (3, 4, 11), generator=torch.Generator())
    attributes = audiocraft_classes().ConditioningAttributes
    with torch.no_grad():
        expected = theirs.lm(sequence, [attributes(text={"description": t}) for t in TEXTS])
    text, mask = encode_text(model.lm, TEXTS)
    assert mask.sum(1).tolist()[2] == 0 and expected.std() > 0.5
    ours = sl.forward(model.lm, sequence, text=text, text_mask=mask)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_greedy_codes_and_sound_are_theirs(theirs, model):
    theirs.set_generation_params(use_sampling=False, duration=0.004, cfg_coef=3.0)
    wav, codes = theirs.generate([TEXTS[1]], return_tokens=True)
    out = model.generate(description=TEXTS[1], **GREEDY)
    assert codes.unique().numel() > 3
    assert torch.equal(out.codes, codes)
    torch.testing.assert_close(out.wav, wav.clamp(-1, 1), rtol=0, atol=1e-5)
    prompt = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(1)) * 0.3
    wav, codes = theirs.generate_continuation(prompt, 32000, [TEXTS[1]], return_tokens=True)
    out = model.generate(description=TEXTS[1], prompt=prompt[0], prompt_sample_rate=32000, **GREEDY)
    assert torch.equal(out.codes, codes)


def test_there_and_back(folder, model, tmp_path, t5):
    """Bit-equal in fp32; Meta's own files are fp16, and become fp32 when they are read."""
    again = sl.interop.save_audiocraft(model, tmp_path / "again")
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        before, after = read_torch_file(folder / name), read_torch_file(again / name)
        assert before["xp.cfg"] == after["xp.cfg"]
        assert before["best_state"].keys() == after["best_state"].keys()
        assert all(torch.equal(v, after["best_state"][n]) for n, v in before["best_state"].items())
    half = sl.load(sl.interop.save_audiocraft(model, tmp_path / "half", dtype="fp16"))
    for name, tensor in half.lm.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.lm.state_dict()[name].half().float())


def test_the_model_is_a_stage_model(model, tmp_path):
    expected = model.generate(description=TEXTS[0], **GREEDY).codes
    model.save(tmp_path / "mine")
    again = sl.load(tmp_path / "mine")
    assert torch.equal(again.generate(description=TEXTS[0], **GREEDY).codes, expected)
    sl.extend_embedding(again.lm)
    wav = torch.randn(1, 90, generator=torch.Generator().manual_seed(1)) * 0.3
    assert again.generate(wav, 32000, TEXTS[0], **GREEDY).codes.shape == (1, 4, 16)
    with pytest.raises(sl.StageLiteError, match=r"context token, which audiocraft's MusicGen"):
        sl.interop.save_audiocraft(again, tmp_path / "x")
    with pytest.raises(sl.StageLiteError, match=r"text encoder is 'other'.*t5='t5-base'"):
        sl.interop.save_audiocraft(model, tmp_path / "x", t5="other")
    with pytest.raises(sl.StageLiteError, match="reads words from a table of its own"):
        sl.interop.save_audiocraft(sl.load("nano-base"), tmp_path / "x", t5="t5-base")


def test_bf16_weights_generate(folder):
    model = sl.load(folder, dtype="bf16")
    assert model.lm.emb[0].weight.dtype == torch.bfloat16
    assert model.codec.encoder.model[0].conv.conv.bias.dtype == torch.float32
    out = model.generate(description=TEXTS[0], **GREEDY)
    assert torch.isfinite(out.wav).all()


def test_their_own_model_inside_ours(theirs, model):
    """A StageModel of audiocraft's objects, with its own T5Conditioner."""
    mixed = sl.StageModel(theirs.lm, theirs.compression_model, model.config).to("cpu")
    out = mixed.generate(description=TEXTS[1], **GREEDY)
    assert torch.equal(out.codes, model.generate(description=TEXTS[1], **GREEDY).codes)


def test_codec_by_name_or_from_elsewhere(folder, model, tmp_path):
    """Fine-tunes name their codec instead of holding it; another one can be given."""
    hf = tmp_path / "hf"
    peers.transformers_musicgen(hf, seed=4)  # the same weights
    state = read_torch_file(folder / "state_dict.bin")
    (tmp_path / "named").mkdir()
    write_torch_file(tmp_path / "named" / "state_dict.bin", state)
    with pytest.raises(sl.StageLiteError, match=r"no compression_state_dict.bin.*codec=folder"):
        sl.load(tmp_path / "named")
    wav = torch.randn(1, 1, 80, generator=torch.Generator().manual_seed(1))
    expected = model.encode(wav, 32000)
    assert torch.equal(sl.load(tmp_path / "named", codec=hf).encode(wav, 32000), expected)
    assert torch.equal(sl.load(tmp_path / "named", codec=folder).encode(wav, 32000), expected)
    reference = {"pretrained": f"//pretrained/{hf}", "exported": True, "version": "1.3.0"}
    write_torch_file(tmp_path / "named" / "compression_state_dict.bin", reference)
    assert torch.equal(sl.load(tmp_path / "named").encode(wav, 32000), expected)
    model.save(tmp_path / "mine")
    for where in (tmp_path / "mine", tmp_path / "mine" / "codec"):
        assert torch.equal(sl.load(tmp_path / "named", codec=where).encode(wav, 32000), expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conditioners:\n", "conditioners:\n  self_wav:\n    model: chroma_stem\n", "listens"),
        ("interleave_stereo_codebooks:\n  use: false", "interleave_stereo_codebooks:\n  use: true",
         "is a stereo MusicGen"),
        ("lm_model: transformer_lm", "lm_model: transformer_lm_magnet", "kind 'transformer_lm_mag"),
        ("model: t5", "model: clap", "expected one description read by a T5"),
        ("modeling: delay", "modeling: parallel", "codebook pattern 'parallel'"),
        ("  - 1\n", "  - 2\n", r"delays its codebooks by \[0, 2, 2, 3\]"),
        ("positional_embedding: sin", "positional_embedding: rope", "embedding = 'rope'"),
        ("norm_first: true", "norm_first: false", "norm_first = False: expected True"),
        ("normalize_text: false", "normalize_text: true", "normalises its texts"),
        ("transformer_lm:", "x: [", "'xp.cfg' is no YAML"),
    ],
)  # fmt: skip
def test_other_models_are_refused_in_a_sentence(folder, tmp_path, old, new, message):
    package = read_torch_file(folder / "state_dict.bin")
    assert old in package["xp.cfg"]
    package["xp.cfg"] = package["xp.cfg"].replace(old, new, 1)
    write_torch_file(tmp_path / "state_dict.bin", package)
    with pytest.raises(sl.StageLiteError, match=message):
        sl.load(tmp_path)
