"""Words to vectors: the table, the null text, and what audiocraft's provider makes of it."""

import types

import pytest
import torch

from stage_lite.errors import StageLiteError
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.text import (
    MAX_WORDS,
    WordConditioner,
    build_vocabulary,
    encode_text,
    split_words,
    word_ids,
)
from stage_lite.upstream import audiocraft_classes

WORDS = ("drums", "bass", "bossa", "nova", "hip-hop", "6/8")


@pytest.fixture
def lm():
    config = LMConfig(card=16, dim=32, num_layers=1, num_heads=2, vocabulary=WORDS, word_dim=8)
    return build_lm(config, seed=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Drums, Bossa Nova", ["drums", "bossa", "nova"]),
        ("hip-hop in 6/8; R&B!", ["hip-hop", "in", "6/8", "r&b"]),
        ("C# minor — don't", ["c#", "minor", "don't"]),
        ("  ,;:.  ", []),
        ("", []),
    ],
)
def test_split_words(text, words):
    assert split_words(text) == words


def test_build_vocabulary():
    texts = ["drums, rock", "bass, rock", "drums, waltz"]
    assert build_vocabulary(texts) == ["drums", "rock", "bass", "waltz"]
    assert build_vocabulary(texts, min_count=2) == ["drums", "rock"]


def test_words_have_ids_and_unknown_words_share_one(lm):
    reader = lm.condition_provider.conditioners["description"]
    assert isinstance(reader, WordConditioner)
    assert word_ids(reader, "drums, BASS tuba 6/8 kazoo").tolist() == [2, 3, 1, 7, 1]


def test_padding_is_a_fixed_multiple_and_zero(lm):
    text, mask = encode_text(lm, ["drums", "bass bossa nova", None])
    assert text.shape == (3, 8, 32)
    assert mask.sum(1).tolist() == [1, 3, 0]
    assert not text[~mask].any()
    assert text[mask].any(-1).all()
    alone, _ = encode_text(lm, ["drums"])
    assert torch.equal(alone[0], text[0])
    longer, _ = encode_text(lm, ["drums " * 9])
    assert longer.shape[1] == 16


@pytest.mark.parametrize("nothing", [None, "", "   "])
def test_null_text(lm, nothing):
    assert encode_text(lm, [nothing, nothing]) == (None, None)
    text, mask = encode_text(lm, [nothing, "drums"])
    assert not text[0].any()
    assert not mask[0].any()


def test_equal_to_audiocrafts_provider(lm):
    descriptions = ["drums, bossa nova", None, "tuba"]
    attributes = audiocraft_classes().ConditioningAttributes
    provider = lm.condition_provider
    conditions = [attributes(text={"description": d}) for d in descriptions]
    expected, _ = provider(provider.tokenize(conditions))["description"]
    assert torch.equal(encode_text(lm, descriptions)[0], expected)


def test_long_text_is_cut_with_a_warning(lm):
    with pytest.warns(UserWarning, match=f"of 2000 words: the first {MAX_WORDS} are used"):
        text, mask = encode_text(lm, ["drums bass " * 1000])
    assert text.shape[1] == mask.sum() == MAX_WORDS


def test_the_table_learns(lm):
    text, _ = encode_text(lm, ["drums", None])
    text.sum().backward()
    reader = lm.condition_provider.conditioners["description"]
    assert reader.embed.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2]


class FakeTokenizer:
    """Words by length, an end mark behind, padded to the longest: the shape of T5's answers."""

    def __len__(self):
        return 20

    def __call__(self, texts, return_tensors, padding):
        rows = [[len(word) for word in text.split()] + [1] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return Answer(input_ids=ids, attention_mask=(ids > 0).long())


class Answer(dict):
    def to(self, device):
        return self


class FakeT5(torch.nn.Module):
    config = types.SimpleNamespace(d_model=512, vocab_size=20)

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(20, 512)

    def forward(self, input_ids, attention_mask):
        return types.SimpleNamespace(last_hidden_state=self.table(input_ids))


def test_t5_answers_the_same_way():
    """MusicGen's text reader behind the same call; each row as if it were alone."""
    from stage_lite.generate import generate_codes
    from stage_lite.interop.t5 import T5, make_reader
    from stage_lite.lm import forward

    config = LMConfig(card=16, dim=32, num_layers=2, num_heads=2, t5="t5-small")
    reader = make_reader("t5-small", 32, t5=T5(FakeTokenizer(), FakeT5()))
    lm = build_lm(config, seed=0, text_reader=reader)
    descriptions = ["slow waltz for two hands", None, "drums"]
    text, mask = encode_text(lm, descriptions)
    assert mask.sum(1).tolist() == [6, 0, 2]
    assert not any(name.startswith("t5") or ".t5." in name for name in lm.state_dict())

    sequence = torch.randint(0, 16, (3, 4, 9), generator=torch.Generator().manual_seed(0))
    attributes = audiocraft_classes().ConditioningAttributes
    conditions = [attributes(text={"description": d}) for d in descriptions]
    expected = lm(sequence, conditions)
    actual = forward(lm, sequence, text=text, text_mask=mask)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)

    together = generate_codes(lm, None, descriptions, 6, temperature=0).codes
    for b, description in enumerate(descriptions):
        alone = generate_codes(lm, None, description, 6, temperature=0).codes
        assert torch.equal(together[b], alone[0])


def test_bad_texts_and_vocabularies_are_named(lm, unchecked_types):
    with pytest.raises(StageLiteError, match="description of row 1 is a int: expected a string"):
        encode_text(lm, ["drums", 3])
    with pytest.raises(StageLiteError, match="vocabulary holds 'bass' more than once"):
        WordConditioner(["bass", "drums", "bass"], 8, 32)
    lm.fuser.fuse2cond["cross"] = ["description", "melody"]
    with pytest.raises(StageLiteError, match="expected exactly one, a text read by cross-att"):
        encode_text(lm, ["drums"])
