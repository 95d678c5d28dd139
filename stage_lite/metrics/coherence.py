"""Does a stem fit the mix? Onsets, pulse and harmony without weights; a small model; COCOLA.

Aim: to tell a stem that was played to a mix from one that was played to another. Each measure is
read next to its floor (another song's mix), its ceiling (the real stem) and no context, with n and
an interval; `retrieval_accuracy` puts any of them on one scale: how often it picks the right mix
out of sixteen.

Conventions: mix and stem are the same window, and the mix must not hold the stem, which would make
every score perfect. Both are mixed to mono. Larger is better; 0 is chance (onsets, pulse, chroma)
or what another song's stem gets on average (the model). A silent stem (below -60 dBFS) fits as
little as chance and scores 0; a silent mix is an error, as there is nothing to fit to: leave the
window out, and count it.

Source: Ciranni et al. 2024, COCOLA, arXiv:2404.16969; Müller 2015, Fundamentals of Music
Processing, sec. 3.1.2 (chroma) and 4.4 (transpositions as rotations).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..examples import Example
from ..shipped import PRETRAINED
from .beats import (
    ONSET_WINDOW_S,
    _covered,
    _window,
    find_onsets,
    onset_alignment_of_times,
)
from .bootstrap import Bootstrap, Column
from .trackers import AnyTracker, Wav, tracked_beats

if TYPE_CHECKING:
    from .contrastive import PairModel

CHROMA_RATE = 22050  # Hz
CHROMA_HOP = 512  # samples, 23 ms
CHROMA_BLOCK_S = 0.5  # chroma are compared half-second by half-second
SHORTEST_S = 1.0  # that the model and chroma take
COCOLA_RATE, COCOLA_S = 16000, 5.0  # what the published checkpoint was trained on
COCOLA_REPOSITORY = "github.com/gladia-research-group/cocola"

Scorer = Callable[[Tensor, Tensor, int], float]  # (mix, stem, sample_rate) -> larger is better


# --- without weights -----------------------------------------------------------------------------


def onset_agreement(
    mix_wav: Wav, stem_wav: Wav, sample_rate: int, window_s: float = ONSET_WINDOW_S
) -> float:
    """How many onsets of the stem fall on an onset of the mix, more than by chance.

    Asks only where the stem plays, not whether it plays: a single hit on an onset of the mix
    scores 1. A mix of long notes has few onsets, and a stem that fills its gaps scores low even if
    it is real; `pulse_agreement` asks for the beat instead.

    Args:
        mix_wav: [C, L] or [L], without the stem.
        stem_wav: the same window.
        sample_rate: Hz, of both.
        window_s: how far an onset may be off, to either side.

    Returns:
        (share - c) / (1 - c), where c is the share of the window that lies within `window_s` of an
        onset of the mix: the share of onsets at random times that would hit. 1: every onset is on
        one of the mix. 0: as many as by chance, or no onsets at all.

    Raises:
        StageLiteError: malformed audio, other lengths, a mix without onsets, or one so dense that
            more than 95 % of the window are near an onset.
    """
    mix, stem = _pair(mix_wav, stem_wav, sample_rate)
    onsets = find_onsets(mix, sample_rate)
    if not len(onsets):
        raise StageLiteError(
            "the mix has no onsets; expected at least one for the stem's onsets to agree with; "
            "leave the window out, and count it"
        )
    covered = _covered(onsets, mix.shape[-1] / sample_rate, _window(window_s))
    if covered > 0.95:
        raise StageLiteError(
            f"{covered:.0%} of the window lies within {window_s} s of an onset of the mix; "
            "expected at most 95 %, else every stem agrees; take a smaller window_s"
        )
    played = find_onsets(stem, sample_rate)
    if not len(played):
        return 0.0
    share = float(np.mean(np.abs(played[:, None] - onsets).min(axis=1) <= window_s))
    return (share - covered) / (1 - covered)


def pulse_agreement(
    mix_wav: Wav,
    stem_wav: Wav,
    sample_rate: int,
    tracker: AnyTracker = None,
    window_s: float = ONSET_WINDOW_S,
) -> float:
    """How many onsets of the stem fall on beats and eighths of the mix, more than by chance.

    For where the true beats are unknown; where they are known, `beats.onset_alignment` of them is
    better: a tracker errs. Swing and 6/8 score low even when they are real.

    Args:
        mix_wav: [C, L] or [L], without the stem.
        stem_wav: the same window.
        sample_rate: Hz, of both.
        tracker: function (wav Float[1, L], sample_rate) -> beat times of the mix, or a name of
            `trackers.list_trackers()`; None is librosa's.
        window_s: how far an onset may be off, to either side.

    Returns:
        As `beats.onset_alignment` above chance.

    Raises:
        StageLiteError: malformed audio, other lengths, a mix in which fewer than two beats are
            heard.
    """
    mix, stem = _pair(mix_wav, stem_wav, sample_rate)
    beats = tracked_beats(mix, sample_rate, tracker)
    if len(beats) < 2:
        raise StageLiteError(
            f"{len(beats)} beats were heard in the mix; expected at least two; leave the window "
            "out, and count it, or pass a tracker that knows the beats"
        )
    played = find_onsets(stem, sample_rate)
    return onset_alignment_of_times(beats, played, mix.shape[-1] / sample_rate, window_s)


def chroma_agreement(mix_wav: Wav, stem_wav: Wav, sample_rate: int) -> float:
    """How alike the pitch classes of stem and mix are, half-second by half-second.

    For pitched stems only. On drums it is a number without a meaning: a cymbal has energy in all
    twelve classes, and what is left of them is noise.

    The chroma of each half-second are compared by their correlation over the twelve classes, and
    the correlations are averaged where both are heard. Over all twelve transpositions of a stem
    they average to exactly 0, so 0 is what a stem in a random key gets. A stem in the right key
    with the wrong chords is above 0.

    Args:
        mix_wav: [C, L] or [L], without the stem.
        stem_wav: the same window.
        sample_rate: Hz, of both.

    Returns:
        In [-1, 1]; 1: the same balance of pitch classes throughout. Real stems stay below: on 16
        windows of the sample songs basses reach 0.3, keys and guitars 0.5, and with another song's
        mix all three lie within 0.05 of 0. 0 also if the two are never heard at once.

    Raises:
        StageLiteError: malformed audio, other lengths, less than 1 s, a silent mix.
    """
    import librosa

    mix, stem = _pair(mix_wav, stem_wav, sample_rate, SHORTEST_S)
    mix, stem = (resample(wav, sample_rate, CHROMA_RATE) for wav in (mix, stem))
    # One tuning for both: a stem that is out of tune with the mix shall not be put right.
    tuning = librosa.estimate_tuning(y=mix[0].numpy(), sr=CHROMA_RATE)
    n_blocks = max(1, int(mix.shape[-1] / CHROMA_RATE / CHROMA_BLOCK_S))
    blocks = [_chroma(wav, n_blocks, tuning) for wav in (mix, stem)]  # [blocks, 12]
    heard = np.logical_and(*(_heard(wav, n_blocks) for wav in (mix, stem)))
    if not heard.any():
        return 0.0
    a, b = (block[heard] for block in blocks)
    return float(np.mean([_correlation(x, y) for x, y in zip(a, b, strict=True)]))


# --- the model -----------------------------------------------------------------------------------


def coherence(
    mix_wav: Wav, stem_wav: Wav, sample_rate: int, model: PairModel | None = None
) -> float:
    """How well a stem belongs to a mix, as judged by a small model that was trained on such pairs.

    The model has learnt to tell the stem of a mix from those of other songs, from the same stem a
    part of a beat away, and from the same stem in step but under other chords. It knows the General
    MIDI sounds that it was trained on; recordings and codec artefacts are outside of that, so
    compare with the real stem through the same codec.

    Args:
        mix_wav: [C, L] or [L], without the stem.
        stem_wav: the same window.
        sample_rate: Hz, of both.
        model: None is the one that comes with the package; see `load_coherence`.

    Returns:
        0: what another song's stem gets on average; 1: what the real stem gets on average. Not
        bounded. A silent stem scores 0.

    Raises:
        StageLiteError: malformed audio, other lengths, less than 1 s, a silent mix, no model.
    """
    mix, stem = _pair(mix_wav, stem_wav, sample_rate, SHORTEST_S)
    model = load_coherence() if model is None else model
    if is_silent(stem):
        return 0.0
    with torch.inference_mode():
        vectors = [model.embed(resample(wav, sample_rate, model.config.sample_rate))
                   for wav in (mix, stem)]  # fmt: skip
        return float(model.scores(*vectors))


def load_coherence(folder: str | Path | None = None) -> PairModel:
    """The pair model of a folder; safetensors and JSON, no pickle.

    Args:
        folder: None is the model that comes with the package, which is read once.

    Raises:
        StageLiteError: the folder is not there, is broken, or holds another model.
    """
    return _load(PRETRAINED / "coherence") if folder is None else _load.__wrapped__(folder)


def retrieval_accuracy(
    examples: Sequence[Example],
    scorer: Scorer | PairModel | None = None,
    n_others: int = 15,
    seed: int = 0,
) -> dict[str, float]:
    """How often a measure finds the right mix for a stem among those of other songs.

    Each example's target is scored with its own context and with the contexts of `n_others`
    examples of other songs; it counts as found if its own scores highest. What ties for the first
    place shares it, so that a constant scores exactly chance.

    Args:
        examples: with audio, `context` and `target`, of one length; of enough songs, none of which
            the measure was trained on.
        scorer: function (mix, stem, sample_rate) -> float, such as `chroma_agreement`, which is
            called n * (n_others + 1) times; or a PairModel; None is the shipped one.
        n_others: wrong mixes per stem.
        seed: draws them.

    Returns:
        "value" in [0, 1], "low" and "high" of the 95 % interval over songs, "chance", "n" examples
        of "n_songs" songs, and "n_left_out": examples for which the scorer raised a StageLiteError
        on one of the mixes, such as one without onsets.

    Raises:
        StageLiteError: too few examples of other songs, one without audio, other lengths; a scorer
            that gives no finite number, or raises for every example: its own message.
    """
    mixes = _draw_mixes(examples, n_others, seed)
    if scorer is None:
        scorer = load_coherence()
    if isinstance(scorer, torch.nn.Module):
        scores = _all_scores(examples, scorer)
        rows = [[scores[m, i] for m in row] for i, row in enumerate(mixes)]
        error = None
    else:
        rows, error = _scores_of_rows(examples, mixes, scorer)
    scored = [i for i, row in enumerate(rows) if row is not None]
    if not scored:
        raise StageLiteError(f"no example could be scored: {error}")
    table = np.asarray([rows[i] for i in scored], dtype=np.float64)  # the right mix comes first
    if not np.isfinite(table).all():
        bad = int(np.argmax(~np.isfinite(table).all(axis=1)))
        raise StageLiteError(
            f"the scorer gave {table[bad].tolist()} for example {scored[bad]}; expected finite "
            "numbers"
        )
    best = table.max(axis=1, keepdims=True)
    found = (table[:, 0] == best[:, 0]) / (table == best).sum(axis=1)
    return interval_over_songs(found, [examples[i].song_id for i in scored]) | {
        "chance": 1 / (1 + n_others),
        "n_left_out": len(rows) - len(scored),
    }


def interval_over_songs(values: Column, song_ids: Sequence[str], seed: int = 0) -> dict[str, float]:
    """`Bootstrap.mean` of one number per window, and how many windows and songs it is of."""
    return Bootstrap(song_ids, seed=seed).mean(values) | {
        "n": len(values),
        "n_songs": len(set(song_ids)),
    }


# --- COCOLA --------------------------------------------------------------------------------------


def load_cocola(checkpoint: str | Path, mode: str = "both", **options: Any) -> Scorer:
    """The published COCOLA model as a function (mix, stem, sample_rate) -> float.

    Neither its code nor its weights come with this package, and neither is on PyPI: clone
    github.com/gladia-research-group/cocola, install its requirements, put the clone on PYTHONPATH,
    and download the checkpoint that its README links. The file is a Lightning checkpoint, a pickle
    that COCOLA's own code opens: a pickle can run anything, so open only a file that you trust.

    The wav is cut into windows of 5 s at 16 kHz that overlap by half, as others do; the score is
    the mean over windows. It has no fixed scale: compare with the floor and the real stem.

    Args:
        checkpoint: the .ckpt file.
        mode: "both", "harmonic" or "percussive": which half of COCOLA's input is heard.
        options: passed on to Lightning's `load_from_checkpoint`, such as weights_only=False.

    Raises:
        StageLiteError: the package or the file is missing, or another mode. The function that is
            returned takes at least 5 s.
    """
    modes = ("both", "harmonic", "percussive")
    if mode not in modes:
        raise StageLiteError(f"mode is {mode!r}; expected one of {', '.join(modes)}")
    try:
        constants = importlib.import_module("contrastive_model.constants")
        cocola = importlib.import_module("contrastive_model.contrastive_model").CoCola
        features = importlib.import_module("feature_extraction.feature_extraction")
    except ModuleNotFoundError as error:
        raise StageLiteError(
            f"COCOLA cannot be imported ({error.name!r} is missing); expected a clone of "
            f"{COCOLA_REPOSITORY} on PYTHONPATH with its requirements installed; without it, "
            "`coherence` is the measure of its kind that comes with this package"
        ) from None
    if not Path(checkpoint).is_file():
        raise StageLiteError(
            f"no COCOLA checkpoint at {checkpoint}; expected the .ckpt file that the README of "
            f"{COCOLA_REPOSITORY} links"
        )
    model = cocola.load_from_checkpoint(str(checkpoint), map_location="cpu", **options).eval()
    model.set_embedding_mode(getattr(constants.EmbeddingMode, mode.upper()))
    return functools.partial(_cocola_score, model, features.CoColaFeatureExtractor())


def _cocola_score(model: Any, extract: Any, mix_wav: Wav, stem_wav: Wav, sample_rate: int) -> float:
    mix, stem = _pair(mix_wav, stem_wav, sample_rate, COCOLA_S)
    length = round(COCOLA_S * COCOLA_RATE)
    features = []
    for wav in (mix, stem):
        wav = resample(wav, sample_rate, COCOLA_RATE)[0]
        windows = wav.unfold(0, length, length // 2)[:, None]  # [B, 1, length]
        feature = torch.as_tensor(extract(windows))
        # COCOLA takes the batch axis off a batch of one, and changes in place what it is given.
        features.append(feature.reshape(len(windows), *feature.shape[-3:]).clone())
    with torch.inference_mode():
        return float(model.score(*features).mean())


# --- helpers -------------------------------------------------------------------------------------


def _pair(
    mix_wav: Wav, stem_wav: Wav, sample_rate: int, shortest_s: float = 0.0
) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n"]]:
    """Both as mono of one length; a length that differs by a codec's frame or so is cut."""
    shortest = max(1, round(shortest_s * sample_rate)) if shortest_s else 1
    mix, stem = (
        to_mono(check_wav(wav, sample_rate, name=name, min_samples=shortest))
        for wav, name in ((mix_wav, "mix_wav"), (stem_wav, "stem_wav"))
    )
    lengths = [mix.shape[-1], stem.shape[-1]]
    if abs(lengths[0] - lengths[1]) > 0.05 * sample_rate:
        seconds = [f"{length / sample_rate:.2f} s" for length in lengths]
        raise StageLiteError(
            f"mix_wav is {seconds[0]} long and stem_wav {seconds[1]}; expected the same window of "
            "both; cut the longer one"
        )
    if is_silent(mix):
        raise StageLiteError(
            "mix_wav is silent (below -60 dBFS); expected something for the stem to fit to; leave "
            "the window out, and count it"
        )
    return mix[:, : min(lengths)], stem[:, : min(lengths)]


def _chroma(wav: Float[Tensor, "1 n"], n_blocks: int, tuning: float) -> Float[ndarray, "blocks 12"]:
    """Mean chroma of each half-second; louder moments count more."""
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short audio: n_fft of the lowest octaves is larger
        chroma = librosa.feature.chroma_cqt(
            y=wav[0].numpy(), sr=CHROMA_RATE, hop_length=CHROMA_HOP, tuning=tuning, norm=None
        )
    return np.stack([part.mean(axis=1) for part in np.array_split(chroma, n_blocks, axis=1)])


def _heard(wav: Float[Tensor, "1 n"], n_blocks: int) -> ndarray:
    return np.array([not is_silent(part) for part in wav.tensor_split(n_blocks, dim=1)])


def _correlation(a: Float[ndarray, "12"], b: Float[ndarray, "12"]) -> float:
    """Of two chroma; 0 if one of them is the same in all classes."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def _draw_mixes(examples: Sequence[Example], n_others: int, seed: int) -> list[list[int]]:
    """For each example its own index, and those of `n_others` examples of other songs."""
    if n_others < 1:
        raise StageLiteError(f"n_others is {n_others}; expected at least 1")
    lengths = set()
    for i, example in enumerate(examples):
        if example.context is None or example.target is None:
            raise StageLiteError(
                f"example {i} has no {'context' if example.context is None else 'target'} as "
                "audio; expected both; take a StemDataset with the condition 'backing'"
            )
        lengths |= {(example.context.shape[-1], example.target.shape[-1], example.sample_rate)}
    if len(lengths) > 1 or any(mix != stem for mix, stem, _ in lengths):
        raise StageLiteError(
            f"the examples have (context, target, Hz) of {sorted(lengths)[:4]}; expected one "
            "length and rate for all; take contexts as long as the window (context_s=None)"
        )
    songs = np.array([example.song_id for example in examples])
    rng = np.random.default_rng(seed)
    mixes = []
    for i, song in enumerate(songs):
        possible = np.flatnonzero(songs != song)
        if len(possible) < n_others:
            raise StageLiteError(
                f"{len(possible)} of {len(examples)} examples are of another song than "
                f"{str(song)!r}; expected at least n_others = {n_others}; take more songs"
            )
        mixes.append([i, *rng.choice(possible, n_others, replace=False).tolist()])
    if not mixes:
        raise StageLiteError(f"got no examples; expected some of at least {n_others + 1} songs")
    return mixes


def _scores_of_rows(
    examples: Sequence[Example], mixes: list[list[int]], scorer: Callable
) -> tuple[list[list[float] | None], StageLiteError | None]:
    """Of each target with each of its mixes; None where the scorer raised, and its last error."""
    rows, last = [], None
    for example, row in zip(examples, mixes, strict=True):
        try:
            rows.append([
                scorer(examples[m].context, example.target, example.sample_rate) for m in row
            ])  # fmt: skip
        except StageLiteError as error:
            rows.append(None)
            last = error
    return rows, last


def _all_scores(examples: Sequence[Example], model: PairModel) -> Float[ndarray, "n n"]:
    """Of every context with every target."""
    rate = model.config.sample_rate
    sides = []
    with torch.inference_mode():
        for wavs in ([e.context for e in examples], [e.target for e in examples]):
            vectors = [
                model.embed(resample(to_mono(wav), e.sample_rate, rate))
                for wav, e in zip(wavs, examples, strict=True)
            ]
            sides.append(torch.cat(vectors))
        return model.similarities(*sides).numpy().astype(np.float64)


@functools.cache
def _load(folder: str | Path) -> PairModel:
    from .contrastive import load_pair_model

    return load_pair_model(folder)
