"""Do the onsets, the pulse and the notes of a stem agree with those of a mix? Without weights.

Conventions as in `coherence`, where these measures are in reach too. `..._of_times` and
`chroma_agreements` are for what is known already and for many stems at once: the mix is listened to
once for all of its stems.

Source: Müller 2015, Fundamentals of Music Processing, sec. 3.1.2 (chroma) and 4.4 (transpositions
as rotations).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..metronome import check_times
from .beats import ONSET_WINDOW_S, find_onsets, onset_alignment_of_times, share_near
from .reference import Times
from .trackers import AnyTracker, Wav, tracked_beats

CHROMA_RATE = 22050  # Hz
CHROMA_HOP = 512  # samples, 23 ms
CHROMA_BLOCK_S = 0.5  # chroma are compared half-second by half-second
SHORTEST_S = 1.0  # that chroma take
MOST_COVERED = 0.95  # of the window, by the neighbourhood of the mix's onsets


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
    mix, stem = pair_of(mix_wav, stem_wav, sample_rate)
    onsets, played = find_onsets(mix, sample_rate), find_onsets(stem, sample_rate)
    return onset_agreement_of_times(onsets, played, mix.shape[-1] / sample_rate, window_s)


def onset_agreement_of_times(
    mix_onsets: Times, stem_onsets: Times, duration_s: float, window_s: float = ONSET_WINDOW_S
) -> float:
    """`onset_agreement` of known onsets in a window of `duration_s` seconds.

    Raises:
        StageLiteError: malformed times, no onsets in the mix, or so many that all is near one.
    """
    mix = check_times(mix_onsets, "mix_onsets")
    stem = check_times(stem_onsets, "stem_onsets")
    if not len(mix):
        raise StageLiteError(
            "the mix has no onsets; expected at least one for the stem's onsets to agree with; "
            "leave the window out, and count it"
        )
    share, covered = share_near(stem, mix, duration_s, window_s)
    if covered > MOST_COVERED:
        raise StageLiteError(
            f"{covered:.0%} of the window lies within {window_s} s of an onset of the mix; "
            f"expected at most {MOST_COVERED:.0%}, else every stem agrees; take a smaller window_s"
        )
    return (share - covered) / (1 - covered) if len(stem) else 0.0


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
    mix, stem = pair_of(mix_wav, stem_wav, sample_rate)
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
    return chroma_agreements(mix_wav, [stem_wav], sample_rate)[0]


def chroma_agreements(mix_wav: Wav, stem_wavs: Sequence[Wav], sample_rate: int) -> list[float]:
    """`chroma_agreement` of several stems of one length with one mix.

    All chroma come from one call, which makes its filters once: 7 clips of 8 s in 0.17 s instead of
    0.37 s on two cores, and the mix counts once.

    Raises:
        StageLiteError: as there.
    """
    import librosa

    pairs = [pair_of(mix_wav, stem, sample_rate, SHORTEST_S) for stem in stem_wavs]
    shortest = min(stem.shape[-1] for _, stem in pairs)
    sounds = [pairs[0][0], *(stem for _, stem in pairs)]
    slow = [resample(wav[:, :shortest], sample_rate, CHROMA_RATE) for wav in sounds]
    n_blocks = max(1, int(slow[0].shape[-1] / CHROMA_RATE / CHROMA_BLOCK_S))
    # One tuning for all: a stem that is out of tune with the mix shall not be put right.
    tuning = librosa.estimate_tuning(y=slow[0][0].numpy(), sr=CHROMA_RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short audio: n_fft of the lowest octaves is larger
        chroma = librosa.feature.chroma_cqt(
            y=torch.cat(slow).numpy(), sr=CHROMA_RATE, hop_length=CHROMA_HOP, tuning=tuning,
            norm=None,
        )  # fmt: skip
    parts = np.array_split(chroma, n_blocks, axis=-1)
    of_mix, *of_stems = np.stack([part.mean(axis=-1) for part in parts], axis=1)  # [blocks, 12]
    mix_heard, *stems_heard = (_heard(wav, n_blocks) for wav in slow)
    found = []
    for blocks, stem_heard in zip(of_stems, stems_heard, strict=True):
        both = zip(of_mix, blocks, mix_heard & stem_heard, strict=True)
        alike = [_correlation(a, b) for a, b, heard in both if heard]
        found.append(float(np.mean(alike)) if alike else 0.0)
    return found


def pair_of(
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


def _heard(wav: Float[Tensor, "1 n"], n_blocks: int) -> ndarray:
    return np.array([not is_silent(part) for part in wav.tensor_split(n_blocks, dim=1)])


def _correlation(a: Float[ndarray, "12"], b: Float[ndarray, "12"]) -> float:
    """Of two chroma; 0 if one of them is the same in all classes."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-12 else 0.0
