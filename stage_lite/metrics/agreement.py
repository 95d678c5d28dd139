"""Agreement with one mix of what is known already, or of many stems at once.

The measures are those of `coherence`; here the mix is listened to once for all of its stems.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..audio import resample
from ..errors import StageLiteError
from ..metronome import check_times
from .beats import ONSET_WINDOW_S, _covered
from .coherence import (
    CHROMA_BLOCK_S,
    CHROMA_HOP,
    CHROMA_RATE,
    SHORTEST_S,
    _correlation,
    _heard,
    _pair,
)
from .reference import Times

MOST_COVERED = 0.95  # of the window, by the neighbourhood of the mix's onsets


def onset_agreement_of_times(
    mix_onsets: Times, stem_onsets: Times, duration_s: float, window_s: float = ONSET_WINDOW_S
) -> float:
    """`coherence.onset_agreement` of known onsets in a window of `duration_s` seconds.

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
    covered = _covered(mix, duration_s, window_s)
    if covered > MOST_COVERED:
        raise StageLiteError(
            f"{covered:.0%} of the window lies within {window_s} s of an onset of the mix; "
            f"expected at most {MOST_COVERED:.0%}, else every stem agrees; take a smaller window_s"
        )
    if not len(stem):
        return 0.0
    share = float(np.mean(np.abs(stem[:, None] - mix).min(axis=1) <= window_s))
    return (share - covered) / (1 - covered)


def chroma_agreements(
    mix_wav: Float[Tensor, "1 _"], stem_wavs: Sequence[Float[Tensor, "1 _"]], sample_rate: int
) -> list[float]:
    """`coherence.chroma_agreement` of several stems of one length with one mix.

    All chroma come from one call, which makes its filters once: 7 clips of 8 s in 0.17 s instead of
    0.37 s on two cores, and the mix counts once.

    Raises:
        StageLiteError: as there.
    """
    import librosa

    pairs = [_pair(mix_wav, stem, sample_rate, SHORTEST_S) for stem in stem_wavs]
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
