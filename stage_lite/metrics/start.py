"""Does music start on the beat? From the first strong onset to the beat that is nearest to it.

    beats     |       |       |       |
    wav       ...........#....#...#...#      # strong onset, . too weak to be one
                      |--|                   late by a third of a beat: +0.33

Sign: above 0 the music is late, below 0 it is early. The nearest beat is at most half a beat away,
so starting a whole beat late is no error here; `seconds` and `beats` say nothing of which beat.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import check_wav, is_silent, resample, to_mono
from ..errors import StageLiteError
from ..metronome import check_times
from .reference import Times, beat_phase, check_reference, phase_time
from .trackers import ANALYSIS_RATE, Wav

HOP = 256  # samples, 8 ms
LEAD_S = 0.2  # of silence before the wav: a sound at its very first moment is an onset too
QUIET_DB = 50.0  # below the loudest place: counts as silence, so that a hiss begins nothing
STRENGTH = 0.3  # of the strongest onset
RISE_FRAMES = 4  # from where librosa finds an onset, over which its strength is read


class StartOffset(NamedTuple):
    """All NaN where nothing starts.

    Attributes:
        seconds: first strong onset minus nearest beat; above 0 is late.
        beats: the same as a share of a beat, in [-0.5, 0.5].
        onset_s: when that onset is, in seconds from the start of the wav.
    """

    seconds: float
    beats: float
    onset_s: float


def start_offset(
    beat_times: Times, wav: Wav, sample_rate: int, strength: float = STRENGTH
) -> StartOffset:
    """How far from a beat a wav begins.

    The onset is found in steps of 8 ms, and late: clicks and drums by 5 to 13 ms, a bass by 13, an
    80-ms swell by 20. So read nothing into 15 ms. Steady hiss is no start if it is 50 dB below the
    loudest place. The wav is taken to begin from silence: one that was cut out of a sounding note
    begins at 0, whatever the music does.

    Args:
        beat_times: the beats that the music should keep, at least two; the grid goes on beyond
            both ends at their distance there.
        wav: [C, L] or [L], mixed to mono.
        sample_rate: Hz.
        strength: an onset counts if it is at least this strong, as a share of the wav's strongest;
            of the same sound, 0.3 is about 18 dB below it.

    Returns:
        NaN for silence (below -60 dBFS) and where no onset is found.

    Raises:
        StageLiteError: fewer than two beats, malformed times, a wav that `audio.check_wav` refuses,
            a strength that is not in (0, 1].
    """
    mono = to_mono(check_wav(wav, sample_rate))
    beats = check_reference(beat_times, mono.shape[-1] / sample_rate, at_least=2)
    return start_offset_of_times(beats, strong_onsets(mono, sample_rate, strength))


def start_offset_of_times(beat_times: Times, onset_times: Times) -> StartOffset:
    """`start_offset` of known onsets, of which the first one counts."""
    beats = check_reference(beat_times, at_least=2)
    onsets = check_times(onset_times, "onset_times")
    if not len(onsets):
        return StartOffset(float("nan"), float("nan"), float("nan"))
    first = onsets[:1]
    phase = beat_phase(first, beats)
    nearest = np.round(phase)
    off = first - phase_time(nearest, beats)
    return StartOffset(float(off[0]), float((phase - nearest)[0]), float(first[0]))


def strong_onsets(
    wav: Float[Tensor, "C L"], sample_rate: int, strength: float = STRENGTH
) -> Float[ndarray, "n"]:
    """The onsets that are at least `strength` times as strong as the strongest, in seconds.

    `librosa.onset.onset_detect` on the rise of the mel spectrum over its upper 50 dB.
    """
    import librosa

    if not 0 < strength <= 1:
        raise StageLiteError(f"strength is {strength}; expected a share above 0, up to 1")
    if is_silent(wav):
        return np.zeros(0)
    mono = to_mono(resample(wav, sample_rate, ANALYSIS_RATE))
    samples = F.pad(mono, (round(LEAD_S * ANALYSIS_RATE), 0))[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short audio: n_fft is larger than the signal
        mel = librosa.feature.melspectrogram(y=samples, sr=ANALYSIS_RATE, hop_length=HOP)
        level = librosa.power_to_db(mel, ref=np.max, top_db=QUIET_DB)
        rise = librosa.onset.onset_strength(S=level, sr=ANALYSIS_RATE, hop_length=HOP)
        frames = librosa.onset.onset_detect(
            onset_envelope=rise, sr=ANALYSIS_RATE, hop_length=HOP, units="frames"
        )
    if not len(frames):
        return np.zeros(0)
    places = frames[:, None] + np.arange(RISE_FRAMES)
    strengths = rise[np.minimum(places, len(rise) - 1)].max(axis=1)
    frames = frames[strengths >= strength * strengths.max()]
    return np.unique(np.maximum(frames * HOP / ANALYSIS_RATE - LEAD_S, 0.0))
