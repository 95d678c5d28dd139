"""Train the small classifier of stem and groove family, for metrics.text.

    python pretraining/train_text_classifier.py --corpus work/corpus --out work/text

An item is a window of one stem of a song; the two questions are which stem it is and to which
family its groove belongs. Families are drawn evenly enough (by the square root of their songs) that
the rare ones are met. Run it again to go on where it was; at the end it is tested on real stems of
the test split and the folder OUT/model is what the package ships as pretrained/text.
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from segments import STEMS, Segments, read_songs
from small_training import (
    autocast,
    begin,
    draw_key,
    parser_for,
    recolour,
    results_table,
    train,
    transpose,
)
from torch import Tensor

from stage_lite.metrics.bootstrap import shown
from stage_lite.metrics.contrastive import EncoderConfig, count_parameters
from stage_lite.metrics.text import (
    TextClassifier,
    accuracy_on_real_stems,
    save_text_classifier,
)
from stage_lite.song import open_songs
from stage_lite.stems import StemDataset

WINDOW_S = 5.12
RATE = 32000
SILENCE = 10 ** (-50 / 20)  # RMS below which a stem is not heard
SMOOTHING = 0.1  # of the family's label: neighbours such as pop and rock share grooves
VALIDATION = 8  # batches of 32 windows
UNKNOWN = -100  # a held-out family that training does not have


@dataclass
class Labelled:
    wavs: Tensor  # Float[B, L]
    stems: Tensor  # Int[B], place in STEMS
    families: Tensor  # Int[B], place among the families, or UNKNOWN


class LabelledStems(Segments):
    """Batch `step` depends on (seed, step) and the songs alone."""

    def __init__(
        self, songs: list[dict], families: list[str], batch_size: int, seed: int,
        window_s: float = WINDOW_S,
    ):  # fmt: skip
        super().__init__(songs, round(window_s * RATE), batch_size, seed)
        if not songs:
            raise SystemExit("no songs of this split; expected at least one")
        self.families = {family: i for i, family in enumerate(families)}
        counts = Counter(song["family"] for song in songs)
        weights = np.array([counts[song["family"]] ** -0.5 for song in songs])
        self._weights = weights / weights.sum()

    def _make(self, step: int) -> Labelled:
        rng = np.random.default_rng([self.seed, step])
        rows = [self._row(rng) for _ in range(self.batch_size)]
        wavs, stems, families = zip(*rows, strict=True)
        wavs = torch.from_numpy(np.stack(wavs))
        return Labelled(wavs, torch.tensor(stems), torch.tensor(families))

    def _row(self, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
        for _ in range(50):
            song = self.songs[rng.choice(len(self.songs), p=self._weights)]
            stem = int(rng.integers(len(STEMS)))
            last = int(song["duration_s"] * RATE) - self.n_samples
            wav = self._read(song, STEMS[stem], int(rng.integers(max(1, last))))
            if _rms(wav) > SILENCE:
                return wav, stem, self.families.get(song["family"], UNKNOWN)
        raise SystemExit("50 windows in a row were silent; is this a corpus of stems?")


def text_losses(model: TextClassifier, rows: Labelled, generator: torch.Generator, args) -> dict:
    """Cross-entropy of both questions, and the shares that are right."""
    spectra = model.spectra(rows.wavs)
    spectra = transpose(spectra, draw_key(generator), model.spectra.silence_value)
    spectra = recolour(spectra, generator)
    with autocast(args):
        stem, family = model.logits(spectra)
    stem, family = stem.float(), family.float()
    return {
        "stem": F.cross_entropy(stem, rows.stems),
        "family": F.cross_entropy(family, rows.families, label_smoothing=SMOOTHING),
        "_stem_right": (stem.argmax(dim=1) == rows.stems).float().mean(),
        "_family_right": (family.argmax(dim=1) == rows.families).float().mean(),
    }


@torch.no_grad()
def judge(model: TextClassifier, batches: LabelledStems, n_batches: int) -> dict[str, float]:
    """Shares of held-out windows that are right; a family that training lacks counts as wrong."""
    right = []
    for step in range(n_batches):
        rows = batches.batch(step)
        stem, family = model.logits(model.spectra(rows.wavs))
        likely = family.topk(min(5, family.shape[1]), dim=1).indices
        right.append(torch.stack([
            stem.argmax(dim=1) == rows.stems,
            likely[:, 0] == rows.families,
            (likely == rows.families[:, None]).any(dim=1),
        ]))  # fmt: skip
    names = ("valid_stem", "valid_family", "valid_family_top5")
    return dict(zip(names, torch.cat(right, dim=1).double().mean(dim=1).tolist(), strict=True))


def measure(model: TextClassifier, args: argparse.Namespace) -> dict:
    """Accuracy on real stems of the test split, as many windows of each kind of stem."""
    songs = [song for song in open_songs(args.corpus, verify=False) if song.split == "test"]
    examples = []
    for stem in STEMS:
        n = max(1, args.test_windows // len(STEMS))
        examples += StemDataset(songs, target=stem, window_s=WINDOW_S, conditions="none", seed=11,
                                n=n, verify=False)  # fmt: skip
    return accuracy_on_real_stems(examples, model)


def card(model: TextClassifier, results: dict, args: argparse.Namespace) -> str:
    """The model card, with the numbers of this run."""
    return f"""# Text: which stem, and which groove

For `stage_lite.metrics.text`: {count_parameters(model):,} parameters in half precision,
{model.config.sample_rate} Hz mono, the encoder of `coherence` trained anew,
{len(model.stems)} stems and {len(model.families)} groove families. Licence: MIT.

**Made by** `pretraining/train_text_classifier.py`, seed {args.seed}: {args.steps:,} steps of
{args.batch_size} windows of {WINDOW_S} s of single stems, AdamW {args.learning_rate},
{args.precision}. Data: the train split of `data_samples/make`, General MIDI sounds only.
Weights: of the last step.

**On real stems of the test split**, of which no groove is in training; 95 % intervals over songs.
Chance: always the most frequent answer, or the five most frequent ones.

{results_table(results)}

They are the ceiling of `text_agreement`, and belong beside what it says of generated stems.

**What it can't do.** A family is often not in a single stem: many grooves share a bass. Families
that only the test split has count as wrong. It takes one stem, not a mix, and knows rendered
General MIDI; what a codec does to a sound it knows only roughly.
"""


def main() -> None:
    args = parser_for(__doc__, steps=4000, batch_size=64).parse_args()
    begin(args)
    songs = read_songs(args.corpus, ("train",))
    families = sorted({song["family"] for song in songs})
    model = TextClassifier(EncoderConfig(), STEMS, families)
    batches = LabelledStems(songs, families, args.batch_size, args.seed)
    held_out = LabelledStems(read_songs(args.corpus, ("valid",)), families, 32, 99)
    print(f"{count_parameters(model):,} parameters, {len(songs)} songs of {len(families)} families "
          f"to train on, {len(held_out.songs)} held out", flush=True)  # fmt: skip

    def losses_of(rows: Labelled, generator: torch.Generator) -> dict[str, Tensor]:
        return text_losses(model, rows, generator, args)

    if train(args, model, batches, losses_of, lambda: judge(model, held_out, VALIDATION)):
        results = measure(model, args)
        folder = save_text_classifier(
            model, args.out / "model", results, card(model, results, args)
        )
        for name, value in results.items():
            print(f"{name}: {shown(value)} (chance {value['chance']:.2f}, n {value['n']})")
        print(f"-> {folder}")


def _rms(wav: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wav))))


if __name__ == "__main__":
    main()
