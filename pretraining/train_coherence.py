"""Train the small model that tells which stem belongs to which mix, for metrics.coherence.

    python pretraining/train_coherence.py --corpus work/corpus --out work/coherence

A row of a batch is a window of a song: the mix of a random subset of its stems, and another stem
of it. The right stem has to be told from
- the stems of the other rows, which are of other songs;
- itself at another time, at least a fifth of a beat out of step: half of the time only that far,
  so that nothing but the timing is wrong, else anywhere in the song;
- itself some bars away, in step but under other chords, if it is pitched and the mix is too.
The last two are of the same song, room and sound, so that only the music can tell. Mix and stem are
recoloured apart from each other, and whole batches are transposed. Run it again to go on where it
was; at the end it is tested and the folder OUT/model is what the package ships as
pretrained/coherence.
"""

import argparse
from collections.abc import Sequence
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
from stage_lite.metrics.coherence import interval_over_songs, retrieval_accuracy
from stage_lite.metrics.contrastive import (
    EncoderConfig,
    PairModel,
    count_parameters,
    save_pair_model,
)
from stage_lite.metrics.reference import beat_phase, phase_time
from stage_lite.song import open_songs
from stage_lite.stems import StemDataset

WINDOW_S = 5.12
RATE = 32000
SILENCE = 10 ** (-50 / 20)  # RMS below which a stem is not heard
TARGETS = ("drums", "bass", "keys", "guitar", "other")
OFF_BEAT = (0.2, 0.8)  # of a beat
OTHER_CHORDS = 0.7  # share of a window that has to have another chord
VALIDATION = 12  # batches of 16 windows


@dataclass
class Rows:
    """A batch: mixes and stems that belong together, and the same stems where they do not."""

    mixes: Tensor  # Float[B, L]
    stems: Tensor  # Float[B, L]
    late: Tensor  # Float[B, L]: the stem out of step
    strange: Tensor  # Float[B, L]: the stem in step, under other chords
    is_late: Tensor  # Bool[B]: False where no such place was found, or nothing is heard in it
    is_strange: Tensor  # Bool[B]: the same; and False where stem or mix are drums alone
    song_ids: list[str]
    names: list[str]  # of the stems


class Pairs(Segments):
    """Batch `step` depends on (seed, step) and the songs alone; no song is in a batch twice."""

    def __init__(self, songs: list[dict], batch_size: int, seed: int, window_s: float = WINDOW_S):
        super().__init__(songs, round(window_s * RATE), batch_size, seed)
        if len(songs) < batch_size:
            raise SystemExit(f"{len(songs)} songs for batches of {batch_size}; expected as many")

    def _make(self, step: int) -> Rows:
        rng = np.random.default_rng([self.seed, step])
        rows = []
        for song in rng.permutation(len(self.songs)):
            row = self._row(self.songs[song], rng)
            if row is not None:
                rows.append(row)
            if len(rows) == self.batch_size:
                break
        else:
            raise SystemExit(f"only {len(rows)} of {len(self.songs)} songs have two stems to hear")
        columns = list(zip(*rows, strict=True))
        wavs = [torch.from_numpy(np.stack(part)) for part in columns[:4]]
        flags = [torch.tensor(part) for part in columns[4:6]]
        return Rows(*wavs, *flags, *map(list, columns[6:]))

    def _row(self, song: dict, rng: np.random.Generator) -> tuple | None:
        last = int(song["duration_s"] * RATE) - self.n_samples
        for _ in range(4):
            start = int(rng.integers(max(1, last)))
            wavs = {name: self._read(song, name, start) for name in STEMS}
            wavs = {name: wav for name, wav in wavs.items() if _is_heard(wav)}
            if len(wavs) >= 2:
                break
        else:
            return None
        names = list(wavs)
        target = names.pop(int(rng.integers(len(names))))
        chosen = int(rng.integers(1, 2 ** len(names)))  # one bit per stem
        in_mix = [name for bit, name in enumerate(names) if chosen >> bit & 1]
        mix = sum(wavs[name] for name in in_mix)
        place = (start / RATE, last / RATE, rng)
        late = self._at(song, target, late_start(song["beats"], *place))
        strange = np.zeros_like(late)
        if target != "drums" and in_mix != ["drums"]:
            window_s = self.n_samples / RATE
            strange = self._at(song, target, strange_start(song, window_s, *place))
        heard = (_is_heard(late), _is_heard(strange))
        return mix, wavs[target], late, strange, *heard, song["id"], target

    def _at(self, song: dict, stem: str, start_s: float | None) -> np.ndarray:
        if start_s is None:
            return np.zeros(self.n_samples, np.float32)
        return self._read(song, stem, round(start_s * RATE))


def late_start(
    beats: Sequence[float], start_s: float, last_s: float, rng: np.random.Generator
) -> float | None:
    """Another start for a window, out of step with the first; None if 20 draws found none.

    Args:
        beats: of the song, in seconds.
        start_s: of the window.
        last_s: the latest start.
        rng: draws; half of the starts are less than a beat away.
    """
    if len(beats) < 2 or last_s <= 0:
        return None
    near, beat_s = rng.random() < 0.5, float(np.median(np.diff(beats)))
    for _ in range(20):
        other = rng.uniform(0, last_s)
        if near:
            other = start_s + rng.choice([-1, 1]) * rng.uniform(*OFF_BEAT) * beat_s
        first, second = beat_phase([start_s, other], beats)
        if 0 <= other <= last_s and OFF_BEAT[0] <= (second - first) % 1 <= OFF_BEAT[1]:
            return float(other)
    return None


def strange_start(
    song: dict, window_s: float, start_s: float, last_s: float, rng: np.random.Generator
) -> float | None:
    """Another start, whole bars away, from which most of the window has another chord than here.

    None if the song has no chord labels or no such place.
    """
    beats, chords = song["beats"], song.get("chords") or []
    if len(beats) < 2 or len(chords) < 2:
        return None
    names = np.array([str(name) for _, name in chords])
    changes = np.array([float(time) for time, _ in chords])
    inside = np.arange(0, window_s, 0.1)

    def chords_from(start: float) -> np.ndarray:
        return names[np.searchsorted(changes, start + inside, "right").clip(min=1) - 1]

    bar = int(song.get("beats_per_bar", 4))
    bars = bar * np.arange(-len(beats) // bar, len(beats) // bar + 1)
    starts = phase_time(beat_phase([start_s], beats) + bars, beats)
    here = chords_from(start_s)
    starts = [
        other for other in starts[bars != 0]
        if 0 <= other <= last_s and np.mean(chords_from(other) != here) >= OTHER_CHORDS
    ]  # fmt: skip
    return float(rng.choice(starts)) if starts else None


def pair_losses(model: PairModel, rows: Rows, generator: torch.Generator, args) -> dict:
    """Cross-entropy of the right stem among all stems, and of the right mix among the mixes."""
    n = len(rows.mixes)
    spectra = model.spectra(torch.cat([rows.mixes, rows.stems, rows.late, rows.strange]))
    spectra = transpose(spectra, draw_key(generator), model.spectra.silence_value)
    with autocast(args):
        vectors = model.vectors(recolour(spectra, generator))
    mixes, stems, late, strange = vectors.float().split(n)
    right = model.similarities(mixes, stems)  # [mix, stem]
    late = model.similarities(mixes, late).masked_fill(~rows.is_late, -torch.inf)
    strange = model.similarities(mixes, strange).masked_fill(~rows.is_strange, -torch.inf)
    logits, labels = torch.cat([right, late, strange], dim=1), torch.arange(n)
    return {
        "stem": F.cross_entropy(logits, labels),
        "mix": F.cross_entropy(right.T, labels),
        "_found": (logits.argmax(dim=1) == labels).float().mean(),
    }


@torch.no_grad()
def judge(model: PairModel, batches: Pairs, n_batches: int) -> dict[str, dict[str, float]]:
    """Shares of held-out windows in which the right stem wins, with intervals over songs.

    Returns:
        "in_step": against itself out of step; "on_chord": against itself under other chords; both
        with chance 1/2. "found": against the stems of the other rows, chance 1/B. "right" and
        "wrong": mean similarity of pairs of one song and of two.
    """
    columns: dict[str, list[tuple[str, float]]] = {}
    for step in range(n_batches):
        rows = batches.batch(step)
        n, yes = len(rows.mixes), torch.ones(len(rows.mixes), dtype=torch.bool)
        wavs = torch.cat([rows.mixes, rows.stems, rows.late, rows.strange])
        mixes, stems, late, strange = model.embed(wavs).split(n)
        matrix = model.similarities(mixes, stems)
        right = matrix.diagonal()
        for name, values, known in (
            ("found", matrix.argmax(dim=0) == torch.arange(n), yes),
            ("right", right, yes),
            ("wrong", (matrix.sum(dim=1) - right) / (n - 1), yes),
            ("in_step", right > model.similarities(mixes, late).diagonal(), rows.is_late),
            ("on_chord", right > model.similarities(mixes, strange).diagonal(), rows.is_strange),
        ):
            columns.setdefault(name, []).extend(
                (song, float(value))
                for song, value, k in zip(rows.song_ids, values, known, strict=True)
                if k
            )
    return {
        name: interval_over_songs([value for _, value in pairs], [song for song, _ in pairs])
        for name, pairs in columns.items()
        if pairs
    }


def measure(model: PairModel, args: argparse.Namespace) -> dict:
    """The numbers that are shipped, on the test split: right mix of 16, in step, on the chord."""
    songs = [song for song in open_songs(args.corpus, verify=False) if song.split == "test"]
    retrieval = {}
    for target in TARGETS:
        data = StemDataset(
            songs, target=target, window_s=WINDOW_S, conditions="backing", seed=11,
            n=max(32, args.test_windows // len(TARGETS)), verify=False,
        )  # fmt: skip
        retrieval[target] = list(data)
    everything = [example for examples in retrieval.values() for example in examples]
    results = {"right mix of 16": retrieval_accuracy(everything, model)}
    for target, examples in retrieval.items():
        results[f"right mix of 16, {target}"] = retrieval_accuracy(examples, model)
    pairs = Pairs(read_songs(args.corpus, ("test",)), 16, 13)
    for name, value in judge(model, pairs, max(1, args.test_windows // 16)).items():
        if name in ("in_step", "on_chord"):
            results[name] = value | {"chance": 0.5}
    return results


def card(model: PairModel, results: dict, args: argparse.Namespace) -> str:
    """The model card, with the numbers of this run."""
    rate, frame_ms = model.config.sample_rate, 1000 * model.config.frame_length / RATE
    low, high = f"{model.floor:.3f}", f"{model.ceiling:.3f}"
    return f"""# Coherence: which stem belongs to which mix

For `stage_lite.metrics.coherence`: {count_parameters(model):,} parameters in half precision,
{rate} Hz mono, two log spectra in semitone bands, a small CNN, a vector every {frame_ms:.0f} ms,
a bilinear similarity of the vectors, averaged over time. Licence: MIT.

**Made by** `pretraining/train_coherence.py`, seed {args.seed}: {args.steps:,} steps of
{args.batch_size} windows of {WINDOW_S} s, AdamW {args.learning_rate}, {args.precision}. Data: the
train split of `data_samples/make`, General MIDI sounds only. Weights: of the last step.

**On the test split**, of which no groove and no chart is in training; 95 % intervals over songs:

{results_table(results)}

"in_step": the right stem against itself a part of a beat away; "on_chord": against itself some bars
away, in step, under other chords.

**Scale.** A score is (similarity - {low}) / ({high} - {low}): 0 is what stems of other songs
get on average and 1 what the right one gets, both on the valid split.

**What it can't do.** It knows rendered General MIDI. What a codec does to a sound it knows only
roughly: compare generated stems with real ones that went through the same codec. It never heard a
click as a mix. It does not say whether music is good.
"""


def main() -> None:
    args = parser_for(__doc__, steps=4000, batch_size=32).parse_args()
    begin(args)
    model = PairModel(EncoderConfig())
    pairs = Pairs(read_songs(args.corpus, ("train",)), args.batch_size, args.seed)
    held_out = Pairs(read_songs(args.corpus, ("valid",)), 16, 99)
    print(f"{count_parameters(model):,} parameters, {len(pairs.songs)} songs to train on, "
          f"{len(held_out.songs)} held out", flush=True)  # fmt: skip

    def validate() -> dict[str, float]:
        found = judge(model, held_out, VALIDATION)
        model.floor, model.ceiling = found["wrong"]["value"], found["right"]["value"]
        return {name: value["value"] for name, value in found.items()}

    def losses_of(rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        return pair_losses(model, rows, generator, args)

    if train(args, model, pairs, losses_of, validate):
        with torch.no_grad():
            validate()
        results = measure(model, args)
        folder = save_pair_model(model, args.out / "model", results, card(model, results, args))
        for name, value in results.items():
            print(f"{name}: {shown(value)} (chance {value['chance']:.2f}, n {value['n']})")
        print(f"-> {folder}")


def _is_heard(wav: np.ndarray) -> bool:
    return bool(np.sqrt(np.mean(np.square(wav))) > SILENCE)


if __name__ == "__main__":
    main()
