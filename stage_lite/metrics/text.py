"""Does a stem do what the words say: is it the instrument, and the groove, of its description?

Aim: to see whether a description still counts when a model also hears a context. A small classifier
of stem and groove family listens and says how likely each word is. It errs on real stems too, the
more so about families: its accuracy on real stems, `model.results`, is the ceiling and belongs
beside every result; guessing is the floor.

Conventions: only words that the classifier knows are judged: stems ("drums", "bass", "keys",
"guitar", "other", and the few other names in `STEM_WORDS`) and families such as "bossa nova", the
longest first, so that the "bass" of "drum and bass" is no bass. Anything else, tempo and sounds, is
left out. For one stem, not for a mix. Silence (below -60 dBFS) does nothing of what it was asked:
all probabilities are 0.

Source: Wu et al. 2023, CLAP, arXiv:2211.06687, for the plug-in.
Notebook: 07_evaluation.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..examples import Example
from ..shipped import PRETRAINED
from ..weights import load_weights
from .coherence import interval_over_songs
from .contrastive import Encoder, EncoderConfig, Spectra, read_folder_config, save_folder
from .embeddings import CLAP_WEIGHTS, load_clap_model
from .trackers import Wav

SHORTEST_S = 1.0
TEXT_MODEL = "text classifier"
STEM_WORDS = {  # other words for stems
    "drum": "drums", "percussion": "drums", "piano": "keys", "keyboard": "keys",
    "keyboards": "keys", "organ": "keys", "guitars": "guitar", "basses": "bass",
}  # fmt: skip

ClapScorer = Callable[[Tensor, int, str], float]  # (wav, sample_rate, description)


@dataclass(frozen=True)
class TextAgreement:
    """What the classifier makes of one stem and its description."""

    stem_words: tuple[str, ...]  # stems that the description names; empty: none
    stem_probability: float | None  # that it is one of them; None: none is named
    stem_hit: bool | None  # the likeliest stem is one of them
    family_words: tuple[str, ...]  # families that the description names
    family_probability: float | None
    family_hit: bool | None
    stems: dict[str, float]  # probability of every stem, and of every family
    families: dict[str, float]


class TextClassifier(nn.Module):
    """The encoder of contrastive.py, mean and maximum over time, one linear map per question.

    Attributes:
        results: accuracy on held-out real stems, as config.json says; empty if not measured.
    """

    def __init__(self, config: EncoderConfig, stems: Sequence[str], families: Sequence[str]):
        super().__init__()
        self.config, self.stems, self.families = config, tuple(stems), tuple(families)
        self.results: dict = {}
        self.spectra = Spectra(config)
        self.encoder = Encoder(config)
        self.stem_head = nn.Linear(2 * config.dim, len(self.stems))
        self.family_head = nn.Linear(2 * config.dim, len(self.families))

    def logits(
        self, spectra: Float[Tensor, "B 2 F T"]
    ) -> tuple[Float[Tensor, "B stems"], Float[Tensor, "B families"]]:
        x = torch.relu(self.encoder(spectra))  # [B, dim, frames]
        x = torch.cat([x.mean(dim=-1), x.amax(dim=-1)], dim=1)
        return self.stem_head(x), self.family_head(x)

    def forward(
        self, wav: Float[Tensor, "B samples"]
    ) -> tuple[Float[Tensor, "B stems"], Float[Tensor, "B families"]]:
        """Probabilities of stems and families, from audio at the model's sample rate."""
        stem, family = self.logits(self.spectra(wav))
        return stem.softmax(-1), family.softmax(-1)


def text_agreement(
    wav: Wav, sample_rate: int, description: str, model: TextClassifier | None = None
) -> TextAgreement:
    """How likely a stem is what its description says.

    Args:
        wav: one stem, [C, L] or [L], at least 1 s.
        sample_rate: Hz.
        description: such as "drums, bossa nova". If it names several stems or families, being any
            of them will do.
        model: None is the classifier that comes with the package; see `load_text_classifier`.

    Raises:
        StageLiteError: malformed audio, less than 1 s, no model, or a description without any word
            that the classifier knows.
    """
    wav = _mono(wav, sample_rate)
    model = load_text_classifier() if model is None else model
    stems, families = find_words(description, model.stems, model.families)
    if not stems and not families:
        raise StageLiteError(
            f"the description {description!r} names no stem and no family that the classifier "
            f"knows; expected one of {', '.join(model.stems)}, or a family such as "
            f"{', '.join(model.families[:3])}; leave it out, and count it"
        )
    stem_p, family_p = (dict.fromkeys(names, 0.0) for names in (model.stems, model.families))
    if not is_silent(wav):
        with torch.inference_mode():
            heard = model(resample(wav, sample_rate, model.config.sample_rate))
        stem_p, family_p = (
            dict(zip(names, (float(v) for v in p[0]), strict=True))
            for names, p in zip((model.stems, model.families), heard, strict=True)
        )
    return TextAgreement(
        stems, *_judge(stems, stem_p), families, *_judge(families, family_p), stem_p, family_p
    )


def find_words(
    description: str, stems: Sequence[str], families: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stems and families that a description names, each once, in order.

    Of a family that is not known, a known one inside its name is read: "western swing" is a swing.

    >>> find_words("Drums, drum and bass", ["drums", "bass"], ["bass", "drum and bass"])
    (('drums',), ('drum and bass',))
    """
    from ..text import split_words  # imports audiocraft

    if not isinstance(description, str):
        raise StageLiteError(
            f"description is a {type(description).__name__}; expected a text such as 'drums, rock'"
        )
    words = split_words(description)
    named = {tuple(split_words(name)): ("family", name) for name in families}
    named |= {(word,): ("stem", stem) for word, stem in STEM_WORDS.items() if stem in stems}
    named |= {tuple(split_words(stem)): ("stem", stem) for stem in stems}
    found: dict[str, dict[str, None]] = {"stem": {}, "family": {}}
    place, longest = 0, max(map(len, named), default=1)
    while place < len(words):
        for length in range(longest, 0, -1):  # the longest name that begins here
            hit = named.get(tuple(words[place : place + length]))
            if hit is not None and place + length <= len(words):
                found[hit[0]][hit[1]] = None
                place += length
                break
        else:
            place += 1
    return tuple(found["stem"]), tuple(found["family"])


def accuracy_on_real_stems(
    examples: Sequence[Example], model: TextClassifier | None = None
) -> dict[str, dict[str, float]]:
    """How often the classifier is right about real stems: what a generated stem is compared with.

    Args:
        examples: with audio, `target`, `target_name` and `family`, of songs that the classifier
            was not trained on, for instance a StemDataset(split="test", conditions="none").
        model: None is the classifier that comes with the package.

    Returns:
        "stem" and "family" (the likeliest is right), "family_top5" (it is among the five likeliest)
        and "stem <name>", "family <name>" for each kind of stem; each with "value", "low" and
        "high" of the 95 % interval over songs, "n" and "n_songs", and "chance": the share that is
        right if the most frequent answer (or the five most frequent) is always given; for
        "stem <name>", where that would be all or nothing, the share of this stem. Families that
        the classifier does not know count as wrong.

    Raises:
        StageLiteError: no examples, one without audio, or with a stem that the classifier does not
            know.
    """
    model = load_text_classifier() if model is None else model
    if not len(examples):
        raise StageLiteError("got no examples; expected at least one real stem")
    rows = []
    for i, example in enumerate(examples):
        if example.target is None or example.target_name not in model.stems:
            raise StageLiteError(
                f"example {i} is a {example.target_name!r}"
                f"{' without audio' if example.target is None else ''}; expected audio of one of "
                f"{', '.join(model.stems)}"
            )
        wav = resample(to_mono(example.target), example.sample_rate, model.config.sample_rate)
        with torch.inference_mode():
            stem, family = (p[0] for p in model(wav))
        likely = [model.families[j] for j in family.argsort(descending=True)[:5]]
        rows.append((
            model.stems[int(stem.argmax())] == example.target_name,
            example.family == likely[0],
            example.family in likely,
        ))  # fmt: skip
    return _accuracies(examples, rows)


def load_text_classifier(folder: str | Path | None = None) -> TextClassifier:
    """The classifier of a folder; safetensors and JSON, no pickle.

    Args:
        folder: None is the classifier that comes with the package, which is read once.

    Raises:
        StageLiteError: the folder is not there, is broken, or holds another model.
    """
    return _load(PRETRAINED / "text") if folder is None else _load.__wrapped__(folder)


def save_text_classifier(
    model: TextClassifier, folder: str | Path, results: Mapping, card: str
) -> Path:
    """Write a classifier; `load_text_classifier(folder)` gives it back.

    Args:
        model: weights, stems and families are saved.
        folder: made if missing.
        results: of `accuracy_on_real_stems`; printed beside its scores.
        card: the model card, Markdown.
    """
    config = {
        "kind": TEXT_MODEL,
        "encoder": model.config.to_json(),
        "stems": list(model.stems),
        "families": list(model.families),
        "results": dict(results),
    }
    return save_folder(model, folder, config, card)


def load_clap(weights: str | Path = CLAP_WEIGHTS) -> ClapScorer:
    """A CLAP model as a function (wav, sample_rate, description) -> cosine similarity in [-1, 1].

    Its weights do not come with this package, nothing is downloaded, and no pickle is read. It was
    tried with random weights of the right shapes only: nothing is known here of its scores on the
    nano models' sounds, so read them next to those of the real stems. CLAP listens to 10 s: the
    rows of the pieces of a longer wav are averaged by their lengths.

    Args:
        weights: a folder in the format of transformers, with safetensors, or the name on the
            Hugging Face hub of what is in its cache.

    Raises:
        StageLiteError: transformers or the weights are missing or broken.
    """
    try:
        model = load_clap_model(weights)
        from transformers import ClapProcessor

        processor = ClapProcessor.from_pretrained(str(weights), local_files_only=True)
    except ImportError as error:
        raise StageLiteError(
            f"CLAP needs transformers ({error}). Try: python -m pip install transformers"
        ) from None
    except (OSError, ValueError) as error:
        raise StageLiteError(
            f"no CLAP at {weights} ({str(error).splitlines()[0]}); expected a folder in the format "
            f"of transformers, or what `hf download {CLAP_WEIGHTS}` puts into the cache; without "
            "it, `text_agreement` is the measure of its kind that comes with this package"
        ) from None
    return functools.partial(_clap_score, model, processor)


# --- helpers -------------------------------------------------------------------------------------


def _mono(wav: Wav, sample_rate: int) -> Float[Tensor, "1 L"]:
    shortest = round(SHORTEST_S * sample_rate) if sample_rate > 0 else 1
    return to_mono(check_wav(wav, sample_rate, min_samples=max(1, shortest)))


def _judge(
    named: tuple[str, ...], probabilities: Mapping[str, float]
) -> tuple[float | None, bool | None]:
    """Probability of being any of the named, and whether the likeliest is one of them."""
    if not named:
        return None, None
    likeliest = max(probabilities, key=probabilities.__getitem__)
    heard = probabilities[likeliest] > 0  # all are 0 for silence
    return sum(probabilities[name] for name in named), heard and likeliest in named


def _accuracies(
    examples: Sequence[Example], rows: Sequence[tuple[bool, bool, bool]]
) -> dict[str, dict[str, float]]:
    stems, songs = [e.target_name for e in examples], [e.song_id for e in examples]
    result = {}

    def note(name: str, column: int, truth: Sequence, kind: str | None, n_guesses: int = 1) -> None:
        chosen = [i for i, stem in enumerate(stems) if kind in (None, stem)]
        counts = Counter(truth[i] for i in chosen).most_common(n_guesses)
        result[name] = interval_over_songs(
            [float(rows[i][column]) for i in chosen], [songs[i] for i in chosen]
        ) | {"chance": sum(count for _, count in counts) / len(chosen)}

    families = [e.family for e in examples]
    note("stem", 0, stems, None)
    note("family", 1, families, None)
    note("family_top5", 2, families, None, 5)
    for stem in sorted(set(stems)):
        note(f"stem {stem}", 0, stems, stem)
        result[f"stem {stem}"]["chance"] = stems.count(stem) / len(stems)
        note(f"family {stem}", 1, families, stem)
    return result


def _clap_score(model, processor, wav: Wav, sample_rate: int, description: str) -> float:
    extractor = processor.feature_extractor
    mono = resample(_mono(wav, sample_rate), sample_rate, extractor.sampling_rate)[0]
    pieces = [piece.numpy() for piece in mono.split(extractor.nb_max_samples)]
    sound = extractor(pieces, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    words = processor.tokenizer([description], return_tensors="pt")
    with torch.inference_mode():
        out = model(**sound, **words)
    lengths = torch.tensor([[float(len(piece))] for piece in pieces])
    heard = (out.audio_embeds * lengths).sum(dim=0) / lengths.sum()
    return float(nn.functional.cosine_similarity(heard, out.text_embeds[0], dim=0))


@functools.cache
def _load(folder: str | Path) -> TextClassifier:
    config = read_folder_config(folder, TEXT_MODEL, "pretraining/train_text_classifier.py")
    model = TextClassifier(
        EncoderConfig.from_json(config["encoder"]), config["stems"], config["families"]
    )
    load_weights(model, Path(folder) / "weights.safetensors")
    model.results = config["results"]
    return model.eval().requires_grad_(False)
