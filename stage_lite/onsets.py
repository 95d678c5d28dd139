"""Where notes begin, and whether they sit on the beat: what the pictures of a generation show.

Spectral flux: an onset is a moment at which many frequencies at once get louder than they just
were. Light on purpose (librosa's first import alone takes longer than a whole generation): for
pictures and a first look. Scores that are reported or compared come from metrics.beats.

Notebook: 00_quickstart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import level_db
from .errors import StageLiteError
from .metronome import check_times

WINDOW_S = 0.032  # of one spectrum
HOP_S = 0.005  # between two spectra
COMPRESSION = 100.0  # of the spectrum, whose largest value is 1: log(1 + 100 x)
RISE = 0.04  # how far a peak stands out, where a step from silence to the loudest would be 1; the
# hiss that a small codec leaves behind stays below, so that decoded drums have the onsets they had
QUIET_DB = 40.0  # what is so far below the loudest spectrum does not begin a note
TOLERANCE_S = 0.05  # an onset this near to a beat is on it


def detect_onsets(
    wav: Float[Tensor, "C L"], sample_rate: int, sensitivity: float = 1.0
) -> Float[ndarray, "n"]:
    """Times in seconds at which notes or hits begin; empty for silence.

        log-compressed spectrum  ->  how much each frequency rose within 10 ms  ->  mean over
        frequencies  ->  peaks that stand out from the 200 ms around them

    Args:
        wav: in [-1, 1]. A note at its very first moment is not found: it cannot be told from one
            that was sounding before.
        sample_rate: Hz.
        sensitivity: above 1 finds weaker onsets, below 1 leaves more of them out.

    Source: Böck and Widmer 2013, "Maximum filter vibrato suppression for onset detection", for the
    flux against a frequency-smoothed past.
    """
    if not sensitivity > 0:
        raise StageLiteError(f"sensitivity is {sensitivity}; expected more than 0, 1 by default")
    hop, n_fft = round(HOP_S * sample_rate), 2 * round(WINDOW_S * sample_rate / 2)
    mono = wav.mean(0)
    if len(mono) < n_fft or level_db(wav) < -70:
        return np.zeros(0)
    # A frame's time is that of its middle; half a window of silence stands at either end.
    padded = F.pad(mono, (n_fft // 2, n_fft // 2))
    spectrum = torch.stft(
        padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True
    ).abs()  # [frequencies, frames]
    spectrum = spectrum / spectrum.amax()
    loud = torch.log1p(COMPRESSION * _bands(spectrum, sample_rate)) / np.log1p(COMPRESSION)
    lag = 2
    past = F.max_pool1d(loud.T[None], 3, 1, 1)[0].T  # a neighbour's energy that drifts is no onset
    flux = (loud[:, lag:] - past[:, :-lag]).clamp(min=0).mean(0)
    flux = F.pad(flux, (lag, 0))
    level = spectrum.square().sum(0)
    found = _peaks(flux, level, sensitivity) * hop / sample_rate
    return found[found < (len(mono) - n_fft / 2) / sample_rate]  # being cut off begins nothing


def beat_position(
    onset_times: Float[ndarray, "n"] | Sequence[float],
    beat_times: Float[ndarray, "m"] | Sequence[float],
) -> Float[ndarray, "k"]:
    """Where in its beat each onset is, in [-0.5, 0.5): 0 is on the beat, 0.25 a quarter after it.

    Onsets more than half a beat outside the first and the last beat are left out.
    """
    onsets, beats = check_times(onset_times, "onset_times"), check_times(beat_times, "beat_times")
    if len(beats) < 2:
        raise StageLiteError(f"got {len(beats)} beats; expected at least 2 to measure between them")
    first, last = beats[0] - (beats[1] - beats[0]), beats[-1] + (beats[-1] - beats[-2])
    phase = np.interp(onsets, [first, *beats, last], np.arange(-1, len(beats) + 1), -9, -9)
    phase = phase[(phase >= -0.5) & (phase < len(beats) - 0.5)]
    return (phase + 0.5) % 1 - 0.5


def beat_lock(
    onset_times: Float[ndarray, "n"] | Sequence[float],
    beat_times: Float[ndarray, "m"] | Sequence[float],
    subdivision: int = 2,
) -> float | None:
    """How strictly onsets keep to the grid of the beats: 1 is all on it, 0 is as if by chance.

    The mean of cos(2 pi * subdivision * x) over the onsets' positions x in the beat. Unlike a share
    within a tolerance it is 0 by chance, whatever the tempo and however many the onsets are.

    Args:
        onset_times, beat_times: seconds.
        subdivision: lines of the grid in a beat: 1 quarter notes, 2 eighths, 3 triplets, 4
            sixteenths, where a beat is a quarter note.

    Returns:
        In [-1, 1]; -1 is all in the middle between two lines. None without onsets near a beat.
    """
    if isinstance(subdivision, bool) or subdivision != int(subdivision) or subdivision < 1:
        raise StageLiteError(f"subdivision is {subdivision!r}; expected a whole number from 1")
    position = beat_position(onset_times, beat_times)
    return float(np.cos(2 * np.pi * subdivision * position).mean()) if len(position) else None


def best_subdivision(
    onset_times: Float[ndarray, "n"] | Sequence[float],
    beat_times: Float[ndarray, "m"] | Sequence[float],
) -> int:
    """The subdivision of 1 to 4 that these onsets keep to most strictly.

    Ask it of the real stem and measure a generated one by the answer: asked of what is to be
    measured, it would flatter it. Eighths, if there are no onsets.
    """
    found = {n: beat_lock(onset_times, beat_times, n) for n in (2, 4, 3, 1)}
    return max(found, key=lambda n: -1.0 if found[n] is None else found[n])


def beats_hit(
    onset_times: Float[ndarray, "n"] | Sequence[float],
    beat_times: Float[ndarray, "m"] | Sequence[float],
    tolerance_s: float = TOLERANCE_S,
) -> float:
    """Share of the beats with an onset at most `tolerance_s` away. Many onsets hit by chance."""
    onsets, beats = check_times(onset_times, "onset_times"), check_times(beat_times, "beat_times")
    if not len(beats):
        raise StageLiteError("got no beats; expected at least 1")
    if not len(onsets):
        return 0.0
    return float((np.abs(beats[:, None] - onsets[None]).min(1) <= tolerance_s).mean())


def _bands(spectrum: Float[Tensor, "frequencies frames"], sample_rate: int) -> Tensor:
    """Sum the frequencies into bands of a third of an octave, 40 Hz to 16 kHz."""
    hz = torch.linspace(0, sample_rate / 2, spectrum.shape[0])
    edges = 40 * 2 ** (torch.arange(0, 27) / 3)
    band = torch.bucketize(hz, edges)  # 0 is below 40 Hz
    sums = torch.zeros(len(edges) + 1, spectrum.shape[1]).index_add_(0, band, spectrum)
    return sums[1:][torch.bincount(band, minlength=len(edges) + 1)[1:] > 0]


def _peaks(flux: Tensor, level: Tensor, sensitivity: float) -> ndarray:
    """Frame numbers, with the top of each peak placed between frames."""
    half, near = round(0.1 / HOP_S), round(0.03 / HOP_S)
    around = F.avg_pool1d(flux[None], 2 * half + 1, 1, half, count_include_pad=False)[0]
    highest = F.max_pool1d(flux[None], 2 * near + 1, 1, near)[0]
    soon = F.max_pool1d(F.pad(level[None], (0, near)), near + 1, 1)[
        0
    ]  # the note itself, not its edge
    enough = around + RISE / sensitivity
    found = (flux == highest) & (flux > enough) & (soon > level.max() * 10 ** (-QUIET_DB / 10))
    frames = found.nonzero()[:, 0]
    frames = frames[(torch.diff(frames, prepend=torch.tensor([-near - 1])) > 1)].numpy()
    values = F.pad(flux, (1, 1)).numpy()
    left, middle, right = values[frames], values[frames + 1], values[frames + 2]
    bend = np.maximum(2 * middle - left - right, 1e-9)
    return frames + np.clip((right - left) / (2 * bend), -0.5, 0.5)
