"""Levels, a room and the last fade: from dry stems to a mix."""

from __future__ import annotations

from random import Random

import numpy as np
from scipy.signal import lfilter, oaconvolve

from data_samples.make.instruments import STEMS
from data_samples.make.synth import SAMPLE_RATE

PEAK = 0.9  # of the mix and of every stem
_LEVEL_DB = {"drums": (-20, 2.5), "bass": (-21, 2.5), "keys": (-23, 3), "guitar": (-23, 3),
             "other": (-25, 3)}  # fmt: skip


def mix_stems(seed: str, dry: np.ndarray) -> np.ndarray:
    """Balance the stems, add a room now and then, fade the end, keep the mix below PEAK.

    Args:
        seed: of the song.
        dry: float32 [stems, L] in the order of STEMS.
    Returns:
        float32 [stems, L]; their plain sum is the mix.
    """
    rng = Random(seed + "/mix")
    stems = dry.astype(np.float32)
    room = _room(rng) if rng.random() < 0.35 else None
    for i, stem in enumerate(STEMS):
        level = _active_rms(stems[i])
        centre, spread = _LEVEL_DB[stem]
        target = 10 ** ((centre + rng.uniform(-spread, spread)) / 20)
        wet = 10 ** (rng.uniform(-26, -14) / 20)
        if level < 1e-5:
            stems[i] = 0.0
            continue
        stems[i] *= target / level
        if room is not None and stem != "bass":
            stems[i] += wet * oaconvolve(stems[i], room)[: stems.shape[1]].astype(np.float32)
    fade = min(stems.shape[1], int(0.06 * SAMPLE_RATE))
    stems[:, -fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    mix = stems.sum(0)
    wanted = 10 ** (rng.uniform(-21, -15) / 20) / max(_active_rms(mix), 1e-6)
    peak = max(float(np.abs(mix).max()), float(np.abs(stems).max()), 1e-6)
    return stems * min(wanted, PEAK * rng.uniform(0.85, 1.0) / peak)


def _active_rms(wav: np.ndarray, frame: int = 1600) -> float:
    """RMS over the 50-ms frames that are less than 30 dB below the loudest one."""
    power = np.square(wav[: len(wav) // frame * frame].reshape(-1, frame)).mean(1)
    loud = power[power > power.max() * 1e-3] if len(power) else power
    return float(np.sqrt(loud.mean())) if len(loud) else 0.0


def _room(rng: Random) -> np.ndarray:
    """Impulse response of a small room: decaying noise, darker with time; energy 1."""
    seconds = rng.uniform(0.25, 1.0)
    draw = np.random.default_rng(rng.randrange(2**31))
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = draw.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    noise[: int(0.004 * SAMPLE_RATE)] = 0.0
    pole = rng.uniform(0.5, 0.85)
    dark = lfilter([1 - pole], [1, -pole], noise)
    return (dark / np.sqrt(np.square(dark).sum())).astype(np.float32)
