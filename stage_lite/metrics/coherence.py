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

The measures without weights stand in `agreement` and are in reach here too.

Source: Ciranni et al. 2024, COCOLA, arXiv:2404.16969.
Notebook: 07_evaluation.
"""

from __future__ import annotations

import functools
import importlib
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
from .agreement import SHORTEST_S, chroma_agreement, onset_agreement, pair_of, pulse_agreement
from .bootstrap import Bootstrap, Column
from .trackers import Wav

if TYPE_CHECKING:
    from .contrastive import PairModel

__all__ = [  # of this file and of those imported above
    "Scorer",
    "chroma_agreement",
    "coherence",
    "interval_over_songs",
    "load_cocola",
    "load_coherence",
    "onset_agreement",
    "pulse_agreement",
    "retrieval_accuracy",
    "score_matrix",
]

COCOLA_RATE, COCOLA_S = 16000, 5.0  # what the published checkpoint was trained on
COCOLA_REPOSITORY = "github.com/gladia-research-group/cocola"

Scorer = Callable[[Tensor, Tensor, int], float]  # (mix, stem, sample_rate) -> larger is better


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
    mix, stem = pair_of(mix_wav, stem_wav, sample_rate, SHORTEST_S)
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
        sides = [[getattr(e, side) for e in examples] for side in ("context", "target")]
        scores = score_matrix(*sides, examples[0].sample_rate, scorer)
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


def score_matrix(
    mixes: Sequence[Wav], stems: Sequence[Wav], sample_rate: int, model: PairModel | None = None
) -> Float[ndarray, "n m"]:
    """How well each stem fits each mix, as the pair model hears it; each sound is heard once.

    Args:
        mixes, stems: [C, L] or [L], all of one length.
        sample_rate: Hz, of all.
        model: None is the one that comes with the package.

    Returns:
        Similarities, larger is better; they have no scale of their own.

    Raises:
        StageLiteError: malformed audio, none, other lengths, less than 1 s, no model.
    """
    model = load_coherence() if model is None else model
    shortest = round(SHORTEST_S * sample_rate)
    sides = []
    with torch.inference_mode():
        for name, wavs in (("mix", mixes), ("stem", stems)):
            checked = [
                to_mono(check_wav(w, sample_rate, name=f"{name} {i}", min_samples=shortest))
                for i, w in enumerate(wavs)
            ]
            if len({w.shape[-1] for w in checked}) != 1:
                raise StageLiteError(
                    f"the {len(checked)} {name} wavs have lengths of "
                    f"{sorted({w.shape[-1] for w in checked})[:4]} samples; expected one for all"
                )
            rate = model.config.sample_rate
            sides.append(torch.cat([model.embed(resample(w, sample_rate, rate)) for w in checked]))
        return model.similarities(*sides).numpy().astype(np.float64)


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
    mix, stem = pair_of(mix_wav, stem_wav, sample_rate, COCOLA_S)
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


@functools.cache
def _load(folder: str | Path) -> PairModel:
    from .contrastive import load_pair_model

    return load_pair_model(folder)
