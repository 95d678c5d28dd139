"""Equally loud clips, by ITU-R BS.1770-4: of two clips the louder one is preferred as such.

Integrated loudness in LUFS: K-weighted, in blocks of 0.4 s, the quiet ones left out. Measured by
pyloudnorm with De Man's filters, which are those of the recommendation at any sample rate (a
997-Hz sine at full scale in one channel reads -3.01 LUFS at 48 kHz). A mono clip counts as one
channel. Peaks are sample peaks.

Source: ITU-R BS.1770-4 (2015); Steinmetz and Reiss 2021, pyloudnorm (AES 150).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from .audio import check_wav, is_silent
from .errors import StageLiteError

BLOCK_S = 0.4  # of BS.1770: nothing shorter has a loudness
TARGET_LUFS = -23.0  # EBU R 128
PEAK_DBFS = -1.0  # highest that a matched clip may have
MAX_CHANNELS = 5  # that BS.1770 weighs: left, right, centre, left surround, right surround


def loudness_lufs(wav: Float[Tensor, "C L"], sample_rate: int, *, name: str = "wav") -> float:
    """Integrated loudness in LUFS.

    Args:
        wav: up to 5 channels, at least 0.4 s.
        sample_rate: Hz.
        name: what to call it in the message.

    Raises:
        StageLiteError: shorter than 0.4 s, silent (below -60 dBFS or the gate of -70 LUFS), NaN,
            more than 5 channels.
    """
    checked = check_wav(
        wav, sample_rate, name=name, min_samples=math.ceil(BLOCK_S * float(sample_rate))
    )
    if checked.shape[0] > MAX_CHANNELS:
        raise StageLiteError(
            f"{name} has {checked.shape[0]} channels; expected at most {MAX_CHANNELS}, for which "
            "BS.1770 has weights; mix it with stage_lite.audio.to_mono"
        )
    return _measure(checked, sample_rate, name)


def match_loudness(
    wavs: Sequence[Float[Tensor, "C _"]],
    sample_rate: int,
    *,
    to_lufs: float = TARGET_LUFS,
    peak_dbfs: float | None = PEAK_DBFS,
    names: Sequence[str] | None = None,
) -> tuple[list[Float[Tensor, "C _"]], float]:
    """Bring all clips to one loudness, without clipping any.

    If a peak would pass `peak_dbfs`, all clips are turned down together, so that they stay equally
    loud.

    Args:
        wavs: at least one; may leave [-1, 1], as a sum of stems does.
        sample_rate: Hz, of all.
        to_lufs: wanted loudness.
        peak_dbfs: highest sample allowed; None: any, for clips that are still to be mixed.
        names: what to call each in a message.

    Returns:
        The clips and the loudness that they have now: `to_lufs` or lower.

    Raises:
        StageLiteError: no clips, or one that `loudness_lufs` refuses.
    """
    if not wavs:
        raise StageLiteError("match_loudness got no wavs; expected at least one")
    names = names or [f"wav {i}" for i in range(len(wavs))]
    gains = []
    for wav, name in zip(wavs, names, strict=True):
        peak = max(1.0, float(wav.abs().max()) if wav.numel() else 0.0)
        # Loudness is measured within [-1, 1]: check_wav would clip what is beyond.
        loudness = loudness_lufs(wav / peak, sample_rate, name=name) + 20 * math.log10(peak)
        gains.append(to_lufs - loudness)
    down = 0.0
    if peak_dbfs is not None:
        peaks = [float(wav.abs().max()) for wav in wavs]  # above 0, else loudness_lufs had refused
        highest = max(20 * math.log10(p) + g for p, g in zip(peaks, gains, strict=True))
        down = min(0.0, peak_dbfs - highest)
    matched = [wav * 10 ** ((gain + down) / 20) for wav, gain in zip(wavs, gains, strict=True)]
    return matched, to_lufs + down


def _measure(wav: Float[Tensor, "C L"], sample_rate: int, name: str) -> float:
    import pyloudnorm

    meter = pyloudnorm.Meter(int(sample_rate), filter_class="DeMan")
    loudness = float(meter.integrated_loudness(wav.double().numpy().T))
    if is_silent(wav) or not math.isfinite(loudness):
        raise StageLiteError(
            f"{name} is silent (below -60 dBFS, or no block of 0.4 s above -70 LUFS); expected "
            "sound, which can be brought to a loudness; leave the clip out, and count it"
        )
    return loudness
