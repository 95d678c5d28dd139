"""Agreement with one mix of what is known already, or of many stems at once.

The measures are those of `coherence`; here the mix is listened to once for all of its stems.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..audio import is_silent, resample
from ..errors import StageLiteError
from ..metronome import check_times
from .beats import ONSET_WINDOW_S, _covered
from .coherence import (
    CHROMA_BLOCK_S,
    CHROMA_RATE,
    SHORTEST_S,
    _chroma,
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
    """`coherence.chroma_agreement` of several stems with one mix.

    Raises:
        StageLiteError: as there.
    """
    import librosa

    pairs = [_pair(mix_wav, stem, sample_rate, SHORTEST_S) for stem in stem_wavs]
    mixes: dict[int, tuple] = {}  # by their length: pairs are cut to the shorter one
    found = []
    for mix, stem in pairs:
        if mix.shape[-1] not in mixes:
            slow = resample(mix, sample_rate, CHROMA_RATE)
            n_blocks = max(1, int(slow.shape[-1] / CHROMA_RATE / CHROMA_BLOCK_S))
            tuning = librosa.estimate_tuning(y=slow[0].numpy(), sr=CHROMA_RATE)
            mixes[mix.shape[-1]] = (
                n_blocks, tuning, _chroma(slow, n_blocks, tuning), _heard(slow, n_blocks),
            )  # fmt: skip
        n_blocks, tuning, of_mix, mix_heard = mixes[mix.shape[-1]]
        if is_silent(stem):
            found.append(0.0)
            continue
        slow = resample(stem, sample_rate, CHROMA_RATE)
        heard = np.logical_and(mix_heard, _heard(slow, n_blocks))
        of_stem = _chroma(slow, n_blocks, tuning)
        pieces = zip(of_mix[heard], of_stem[heard], strict=True)
        found.append(
            float(np.mean([_correlation(a, b) for a, b in pieces])) if heard.any() else 0.0
        )
    return found
