"""metrics/text.py, and the training of the classifier."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_corpus import FAMILIES, toy_corpus

from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.metrics import text as text_file
from stage_lite.metrics.contrastive import EncoderConfig
from stage_lite.metrics.text import (
    TextClassifier,
    accuracy_on_real_stems,
    find_words,
    load_clap,
    load_text_classifier,
    save_text_classifier,
    text_agreement,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import small_training
import train_text_classifier
from segments import STEMS, read_songs

RATE = 32000
TINY = EncoderConfig(n_bands=72, long_fft=4096, channels=(4, 8), width=16, dilations=(1, 2), dim=16)
KNOWN = ("bossa nova", "drum and bass", "pop", "pop waltz", "waltz")


def tiny_model(families=KNOWN, seed=0):
    torch.manual_seed(seed)
    return TextClassifier(TINY, STEMS, families).eval()


def noise(seconds=1.5, rate=RATE):
    draw = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(1, round(seconds * rate), generator=draw)


class Ears(TextClassifier):
    """Hears what the level of the wav says: 0.01 the first stem and family, 0.02 the second, ..."""

    def __init__(self):
        super().__init__(TINY, STEMS, KNOWN)
        self.heard = []

    def forward(self, wav):
        self.heard.append(tuple(wav.shape))
        place = round(float(wav.mean()) * 100) - 1
        return tuple(
            0.6 * torch.eye(n)[[place % n]] + 0.4 / n for n in (len(STEMS), len(self.families))
        )


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "description, stems, families",
    [
        ("drums, bossa nova", ("drums",), ("bossa nova",)),
        ("Bass, BOSSA NOVA.", ("bass",), ("bossa nova",)),
        ("drums, drum and bass", ("drums",), ("drum and bass",)),  # no bass
        ("bass, pop waltz, medium tempo", ("bass",), ("pop waltz",)),  # neither pop nor waltz
        ("keys, pop", ("keys",), ("pop",)),
        ("a waltz for piano", ("keys",), ("waltz",)),
        ("drums and bass, pop or waltz", ("drums", "bass"), ("pop", "waltz")),
        ("bass, fretless bass, bossa", ("bass",), ()),
        ("popular drumming", (), ()),
        ("", (), ()),
    ],
)
def test_find_words(description, stems, families):
    assert find_words(description, STEMS, KNOWN) == (stems, families)


# --- agreement -----------------------------------------------------------------------------------


def test_agreement_of_a_known_classifier():
    """Level 0.02: "bass" and "drum and bass", each with 0.6 + 0.4 / 5."""
    wav, ears = torch.full((2, 2 * RATE), 0.02), Ears()
    found = text_agreement(wav, RATE, "bass, drum and bass", ears)
    assert found.stem_words == ("bass",) and found.stem_hit and found.family_hit
    assert found.stem_probability == pytest.approx(0.68)
    assert found.family_probability == pytest.approx(0.68)
    assert sum(found.stems.values()) == pytest.approx(1.0)
    assert list(found.families) == list(KNOWN)
    wrong = text_agreement(wav, RATE, "drums, waltz", ears)
    assert wrong.stem_hit is False and wrong.stem_probability == pytest.approx(0.08)
    either = text_agreement(wav, RATE, "drums or bass", ears)
    assert either.stem_hit and either.stem_probability == pytest.approx(0.76)
    assert (either.family_words, either.family_probability, either.family_hit) == ((), None, None)
    text_agreement(torch.full((44100,), 0.02), 44100, "bass", ears)
    assert ears.heard == [(1, 2 * RATE)] * 3 + [(1, RATE)]


def test_silence_is_nothing_of_what_it_was_asked():
    ears = Ears()
    for wav in (torch.zeros(1, RATE), 1e-3 * noise(1.0)):
        found = text_agreement(wav, RATE, "drums, pop", ears)
        assert found.stem_hit is False and found.family_hit is False
        assert found.stem_probability == found.family_probability == 0.0
    assert not ears.heard


def test_classifier_hears_a_batch_as_its_rows_and_any_length():
    model = tiny_model()
    wavs = torch.cat([noise(), noise().flip(1) * torch.linspace(0, 1, round(1.5 * RATE))])
    with torch.no_grad():
        both = model(wavs)
        for i in range(2):
            for together, alone in zip(both, model(wavs[i : i + 1]), strict=True):
                assert torch.allclose(together[i], alone[0], atol=1e-5)
        assert torch.allclose(model(noise(5.0))[0].sum(), torch.tensor(1.0))


def test_saved_classifier_is_the_classifier(tmp_path, monkeypatch):
    model, results = tiny_model(), {"stem": {"value": 0.9, "low": 0.8, "high": 0.95}}
    save_text_classifier(model, tmp_path, results, "# Card\n")
    loaded = load_text_classifier(tmp_path)
    assert (loaded.stems, loaded.families, loaded.results) == (STEMS, KNOWN, results)
    before, after = (text_agreement(noise(), RATE, "keys, pop", m) for m in (model, loaded))
    assert after.stem_probability == pytest.approx(before.stem_probability, abs=0.01)
    monkeypatch.setattr(text_file, "PRETRAINED", tmp_path.parent)
    (tmp_path.parent / "text").symlink_to(tmp_path)
    assert text_agreement(noise(), RATE, "keys, pop") == after


def test_without_weights_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "PRETRAINED", tmp_path)
    for call in (
        lambda: text_agreement(noise(), RATE, "drums"),
        lambda: accuracy_on_real_stems(real_stems()),
        load_text_classifier,
    ):
        with pytest.raises(StageLiteError, match="no text classifier in .*train_text_classifier"):
            call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: text_agreement(noise(), RATE, "slow and sad", Ears()), "names no stem and no fam"),
        (lambda: text_agreement(noise(), RATE, "", Ears()), "names no stem"),
        (lambda: text_agreement(noise(), RATE, None, Ears()), "description is a NoneType"),
        (lambda: text_agreement(noise(0.5), RATE, "drums", Ears()), "expected at least 32000"),
        (lambda: text_agreement(noise() * float("nan"), RATE, "drums", Ears()), "NaN"),
        (lambda: text_agreement(noise()[None], RATE, "drums", Ears()), "shape"),
        (lambda: text_agreement(noise(), 5, "drums", Ears()), "sample rate 5"),
        (lambda: text_agreement(noise(), -5, "drums", Ears()), "sample rate -5"),
        (lambda: accuracy_on_real_stems([], Ears()), "got no examples"),
        (lambda: accuracy_on_real_stems([replace(real_stems()[0], target=None)], Ears()),
         "example 0 is a 'drums' without audio"),
        (lambda: accuracy_on_real_stems([replace(real_stems()[0], target_name="vocals")], Ears()),
         "example 0 is a 'vocals'; expected"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(unchecked_types, call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


# --- accuracy on real stems ----------------------------------------------------------------------


def real_stems():
    """Ten windows of five songs: two stems, of which `Ears` takes the second for the third."""
    made = []
    for i in range(10):
        name, level = [("drums", 0.01), ("bass", 0.03)][i % 2]
        family = KNOWN[[0, 2][i % 2]] if i < 8 else "polka"  # unknown, so never right
        made.append(
            Example(
                target=torch.full((1, RATE), level), context=None, description=name,
                beat_times=np.zeros(0), downbeat_times=np.zeros(0), song_id=f"song{i // 2}",
                start_s=0.0, duration_s=1.0, condition="none", target_name=name, family=family,
            )
        )  # fmt: skip
    return made


def test_accuracy_of_a_known_classifier():
    found = accuracy_on_real_stems(real_stems(), Ears())
    assert {name: value["value"] for name, value in found.items()} == {
        "stem": 0.5, "family": 0.8, "family_top5": 0.8,
        "stem drums": 1.0, "stem bass": 0.0, "family drums": 0.8, "family bass": 0.8,
    }  # fmt: skip
    assert found["stem"]["n"] == 10 and found["stem"]["n_songs"] == 5
    assert found["family drums"]["n"] == 5
    chances = {
        "stem": 0.5,
        "family": 0.4,
        "family_top5": 1.0,
        "stem drums": 0.5,
        "family bass": 0.8,
    }
    assert {name: found[name]["chance"] for name in chances} == chances
    assert found["family"]["low"] < 0.8 < found["family"]["high"]


# --- CLAP ----------------------------------------------------------------------------------------


def test_clap_that_is_missing(tmp_path):
    with pytest.raises(StageLiteError, match="no CLAP at .*hf download laion/larger_clap_music"):
        load_clap(tmp_path / "none")
    with pytest.raises(StageLiteError, match="no CLAP at laion/larger_clap_music"):
        load_clap()


def test_clap_of_random_weights(tmp_path):
    """Against CLAP's own embeddings: the score is their cosine, whatever the length and rate."""
    from stage_lite.upstream import torchaudio

    torchaudio()
    transformers = pytest.importorskip("transformers")
    tiny_clap(transformers, tmp_path)
    score = load_clap(tmp_path)
    wav = noise(2.0, 48000)
    value = score(wav, 48000, "ab a")
    model = transformers.ClapModel.from_pretrained(tmp_path).eval()
    processor = transformers.ClapProcessor.from_pretrained(tmp_path)
    sound = processor.feature_extractor(wav[0].numpy(), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        out = model(**sound, **processor.tokenizer(["ab a"], return_tensors="pt"))
    expected = torch.cosine_similarity(out.audio_embeds, out.text_embeds)
    assert value == pytest.approx(float(expected), abs=1e-5)
    assert score(wav, 48000, "b") != value
    assert -1 <= score(noise(23.0, 8000), 8000, "ab a") <= 1  # three pieces


def tiny_clap(transformers, folder):
    """A CLAP of a few thousand random weights with a vocabulary of letters."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "Ġa", "ab"]
    config = transformers.ClapConfig(
        text_config=sizes | {"vocab_size": len(words), "intermediate_size": 16, "projection_dim": 8,
                             "max_position_embeddings": 20, "type_vocab_size": 1},
        audio_config={"spec_size": 128, "window_size": 2, "patch_stride": [4, 4], "patch_size": 4,
                      "hidden_size": 32, "patch_embeds_hidden_size": 8, "depths": [1, 1, 1],
                      "num_attention_heads": [1, 2, 4], "num_hidden_layers": 3, "projection_dim": 8,
                      "num_mel_bins": 16},
        projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ClapModel(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = transformers.RobertaTokenizer(vocab=vocabulary, merges=[("a", "b")])
    extractor = transformers.ClapFeatureExtractor(feature_size=16, truncation="rand_trunc")
    transformers.ClapProcessor(extractor, tokenizer).save_pretrained(folder)


# --- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return toy_corpus(tmp_path_factory.mktemp("corpus"), 12, 6, 6)


def settings(corpus, out, *more):
    parser = small_training.parser_for(train_text_classifier.__doc__, 4, 8)
    command = ["--corpus", corpus, "--out", out, "--threads", "1", "--precision", "fp32", *more]
    args = parser.parse_args([str(word) for word in command])
    small_training.begin(args)
    return args


def labelled(corpus, split="train", batch_size=16, window_s=2.0):
    return train_text_classifier.LabelledStems(
        read_songs(corpus, (split,)), sorted(FAMILIES), batch_size, 1, window_s
    )


def test_windows_have_their_labels(corpus):
    rows, again = labelled(corpus).batch(2), labelled(corpus).batch(2)
    assert torch.equal(rows.wavs, again.wavs) and rows.wavs.shape == (16, 2 * RATE)
    assert set(rows.stems.tolist()) <= {0, 1, 2}  # drums, bass, keys: the others are silent
    assert set(rows.families.tolist()) == {0, 1}
    known = train_text_classifier.LabelledStems(read_songs(corpus, ("train",)), ["march"], 16, 1, 1)
    assert set(known.batch(0).families.tolist()) == {0, train_text_classifier.UNKNOWN}
    with pytest.raises(SystemExit, match="no songs of this split"):
        train_text_classifier.LabelledStems([], ["march"], 16, 1)


def test_it_learns_stems_and_grooves_of_a_toy(corpus):
    """Of held-out songs, in seconds; chance is 1/3 and 1/2."""
    args, model = settings(corpus, corpus / "unused"), tiny_model(sorted(FAMILIES)).train()
    batches, losses = labelled(corpus), []
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(28):
        generator = torch.Generator().manual_seed(step)
        parts = train_text_classifier.text_losses(model, batches.batch(step), generator, args)
        optimizer.zero_grad()
        (parts["stem"] + parts["family"]).backward()
        optimizer.step()
        losses.append(float((parts["stem"] + parts["family"]).detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.6
    found = train_text_classifier.judge(model.eval(), labelled(corpus, "valid"), 3)
    assert found["valid_stem"] > 0.9 and found["valid_family"] > 0.75


def test_an_unknown_family_does_not_reach_the_loss(corpus):
    args, model = settings(corpus, corpus / "unused"), tiny_model(sorted(FAMILIES))
    rows = labelled(corpus, batch_size=4).batch(0)
    rows.families[:2] = train_text_classifier.UNKNOWN
    kept = train_text_classifier.Labelled(rows.wavs[2:], rows.stems[2:], rows.families[2:])
    with torch.no_grad():
        family = model.logits(model.spectra(kept.wavs))[1]
        expected = torch.nn.functional.cross_entropy(family, kept.families, label_smoothing=0.1)
        family = model.logits(model.spectra(rows.wavs))[1]
        loss = torch.nn.functional.cross_entropy(family, rows.families, label_smoothing=0.1)
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    parts = train_text_classifier.text_losses(model, rows, torch.Generator().manual_seed(0), args)
    assert float(parts["_family_right"]) <= 0.5


def test_a_whole_run_resumes_and_leaves_a_classifier(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_text_classifier, "EncoderConfig", lambda: TINY)
    monkeypatch.setattr(train_text_classifier, "WINDOW_S", 1.28)
    monkeypatch.setattr(train_text_classifier, "VALIDATION", 1)
    monkeypatch.setattr(train_text_classifier, "STEMS", ("drums", "bass", "keys"))
    monkeypatch.setattr(train_text_classifier.LabelledStems.__init__, "__defaults__", (1.28,))
    monkeypatch.setattr(small_training, "learning_rate", lambda args, step: 1e-3)

    def run(out, steps):
        command = ["train_text_classifier.py", "--corpus", corpus, "--out", out, "--steps", steps,
                   "--batch-size", 4, "--threads", 1, "--test-windows", 12]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        train_text_classifier.main()
        return load_text_classifier(out / "model")

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 3)
    assert "going on at step 1" in capsys.readouterr().out
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.families == tuple(sorted(FAMILIES)) and whole.results == parts.results
    assert whole.results["stem"]["n"] == 12 and whole.results["stem keys"]["n"] == 4
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert f"| stem | {whole.results['stem']['value']:.2f} [" in card and "{" not in card
