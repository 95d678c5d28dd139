"""The text reader: audiocraft's T5Conditioner is the reference, and what can be wrong with a T5."""

import copy
import json
import random
import shutil

import musicgen_peers as peers
import pytest
import torch

import stage_lite as sl
from stage_lite.interop.t5 import T5Reader, make_reader, read_t5
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

TEXTS = ["slow waltz for two hands", None, "rock", "", "drums, bossa nova"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return peers.t5_folder(tmp_path_factory.mktemp("t5") / "t5")


@pytest.fixture
def theirs(folder, monkeypatch):
    """audiocraft's own conditioner, word dropout as MusicGen's training has it."""
    conditioner = audiocraft_classes().T5Conditioner
    monkeypatch.setattr(conditioner, "MODELS", [str(folder)])
    monkeypatch.setattr(conditioner, "MODELS_DIMS", {str(folder): peers.TEXT_DIM})
    return conditioner(str(folder), 32, finetune=False, device="cpu", word_dropout=0.4)


@pytest.fixture
def ours(folder, theirs):
    reader = make_reader(folder, 32, word_dropout=0.4)
    reader.load_state_dict(theirs.state_dict())  # the projection is all of it
    return reader


@pytest.mark.parametrize("training", [False, True])
def test_equal_to_audiocraft(ours, theirs, training, unchecked_types):
    """Tokens, masks, vectors; null texts; words dropped in training, by the same draws.

    Without the tests' checker of types, which draws from the same source.
    """
    outputs = []
    for reader in (ours, theirs):
        reader.train(training)
        random.seed(7)
        tokens = reader.tokenize(list(TEXTS))
        outputs.append((dict(tokens), *reader(tokens)))
    (tokens, vectors, mask), (their_tokens, their_vectors, their_mask) = outputs
    assert tokens.keys() == their_tokens.keys()
    assert all(torch.equal(tokens[key], their_tokens[key]) for key in tokens)
    assert torch.equal(mask, their_mask)
    torch.testing.assert_close(vectors, their_vectors, rtol=0, atol=1e-6)
    assert not vectors[1].any() and not vectors[3].any() and torch.isfinite(vectors).all()
    full = ours.eval().tokenize(list(TEXTS))["attention_mask"].sum()
    assert (mask.sum() < full) == training


def test_null_text_and_rows_alone(ours):
    lm = build_lm(LMConfig(card=16, dim=32, num_layers=1, num_heads=2, t5="x"), 0, ours)
    assert encode_text(lm, [None, " ", ""]) == (None, None)
    text, mask = encode_text(lm, [*TEXTS, "  "])
    assert mask[5].sum() == 0 and not text[5].any()
    alone, _ = encode_text(lm, ["rock"])
    torch.testing.assert_close(text[2, : alone.shape[1]], alone[0], rtol=0, atol=1e-5)


def test_frozen_hidden_and_shared(ours):
    text, _ = ours(ours.tokenize(["rock"]))
    text.sum().backward()
    assert ours.output_proj.weight.grad is not None
    assert not any(p.requires_grad for p in ours.t5.parameters())
    assert sorted(ours.state_dict()) == ["output_proj.bias", "output_proj.weight"]
    assert len(list(ours.parameters())) == 2
    twin = copy.deepcopy(ours)
    assert twin.t5 is ours.t5 and twin.output_proj is not ours.output_proj
    assert ours.bfloat16().t5.dtype == torch.float32  # moved with the model, never cast


def test_from_a_folder_by_config(folder, tmp_path):
    """LMConfig names the folder; a saved model brings it along."""
    config = LMConfig(card=16, dim=32, num_layers=2, num_heads=2, t5=str(folder), word_dropout=0.4)
    before = torch.get_rng_state()
    lm = build_lm(config, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    reader = lm.condition_provider.conditioners["description"]
    assert isinstance(reader, T5Reader) and reader.word_dropout == 0.4
    from conftest import make_tiny_model

    tiny = make_tiny_model(context_token=False)
    model = sl.StageModel(
        lm, tiny.codec, sl.ModelConfig("tiny-t5", config, tiny.config.codec, None, 1.0)
    )
    settings = {"description": "rock", "duration_s": 0.2, "temperature": 0}
    expected = model.generate(**settings).codes
    model.save(tmp_path / "a")
    model.save(tmp_path / "b", t5_folder="../a/t5", codec_folder="../a/codec")
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["config.json", "lm.safetensors"]
    for name in "ab":
        again = sl.load(tmp_path / name)
        assert torch.equal(again.generate(**settings).codes, expected)
        assert again.config.lm.word_dropout == 0.4
        assert str(tmp_path) not in (tmp_path / name / "config.json").read_text()
    (tmp_path / "a" / "t5" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(sl.StageLiteError, match="is not the file that config.json was written"):
        sl.load(tmp_path / "a")


def test_by_name_only_when_a_description_is_read(tmp_path, monkeypatch):
    """A T5 of a name is fetched at the first description; the rest works without a network."""
    from conftest import make_tiny_model

    config = LMConfig(card=16, dim=32, num_layers=2, num_heads=2, t5="t5-small")
    tiny = make_tiny_model(context_token=False)
    model_config = sl.ModelConfig("tiny-t5", config, tiny.config.codec, None, 1.0)
    model = sl.StageModel(build_lm(config, seed=0), tiny.codec, model_config)
    assert model.lm.condition_provider.conditioners["description"].dim == 512
    assert model.generate(duration_s=0.2).codes.shape[-1] == 10
    model.save(tmp_path / "named")
    assert not (tmp_path / "named" / "t5").exists()
    again = sl.load(tmp_path / "named")
    with pytest.raises(
        sl.StageLiteError, match=r"could not download config.json.*of t5-small.*no network.*t5="
    ):
        again.generate(description="rock", duration_s=0.2)
    folder = peers.t5_folder(tmp_path / "small", d_model=512)
    with_folder = sl.load(tmp_path / "named", t5=folder)
    assert with_folder.generate(description="rock", duration_s=0.2).codes.shape[-1] == 10

    from stage_lite.interop import t5 as t5_file

    monkeypatch.setattr(t5_file, "fetch_t5", lambda name: folder)  # as if downloaded
    assert torch.equal(
        again.generate(description="rock", duration_s=0.2, seed=1).codes,
        with_folder.generate(description="rock", duration_s=0.2, seed=1).codes,
    )
    wrong = peers.t5_folder(tmp_path / "wrong", d_model=24)
    with pytest.raises(sl.StageLiteError, match=r"wrong T5 for this model.* 24 numbers.* of 512"):
        sl.load(tmp_path / "named", t5=wrong)


def test_a_tokenizer_without_its_settings(folder, tmp_path):
    """t5-base on the hub holds tokenizer.json and no tokenizer_config.json."""
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer_config.json").unlink()
    texts = [text or "" for text in TEXTS]
    bare = read_t5(tmp_path / "bare").tokenizer(texts)
    assert bare["input_ids"] == read_t5(folder).tokenizer(texts)["input_ids"]
    assert bare["input_ids"][2] == [6, 1]  # rock, and the end


def test_what_can_be_wrong_with_a_t5(folder, tmp_path):
    def copied(name, **files):
        new = tmp_path / name
        new.mkdir()
        for file in folder.iterdir():
            content = files.get(file.stem, file.read_bytes())
            if content is not None:
                (new / file.name).write_bytes(content)
        return new

    from safetensors.torch import load_file, save

    state = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())

    def wrong(**changes):
        return json.dumps(config | changes).encode()

    renamed = {n.replace("block.1", "blick.1"): v for n, v in state.items()}
    cases = [
        (copied("cut", model=(folder / "model.safetensors").read_bytes()[:900]), "no readable T5"),
        (copied("none", model=None), "holds no weights of a T5"),
        (copied("renamed", model=save(renamed)), "weights do not fit the config"),
        (
            copied("bert", config=wrong(model_type="bert")),
            "type 'bert'",
        ),
        (copied("noconfig", config=None), "holds no config.json"),
        (copied("json", config=b"{"), "config.json is not JSON"),
        (copied("words", tokenizer=None), "holds no tokenizer; expected tokenizer.json"),
        (copied("broken", tokenizer=b"{}"), "tokenizer in .* cannot be read"),
        (
            copied("small", config=wrong(vocab_size=5)),
            "no readable T5",
        ),
    ]
    for where, message in cases:
        with pytest.raises(sl.StageLiteError, match=message):
            read_t5(where)
