"""Opus and MP3 at the lowest rates that ffmpeg offers: what a bit rate usually buys."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from numpy import ndarray

LONGEST_LAG_S = 0.1  # delay of a codec that is looked for
TIMEOUT_S = 600


@dataclass(frozen=True)
class Anchor:
    """One setting of one encoder."""

    name: str
    suffix: str  # of the container
    options: tuple[str, ...]  # for ffmpeg


def _opus(bit_s: int) -> tuple[str, ...]:
    # Constant, as variable rates do not go below 5 kbit/s; below 2 kbit/s all frames are empty.
    return ("-c:a", "libopus", "-b:a", str(bit_s), "-vbr", "off", "-frame_duration", "20")


def _mp3(sample_rate: int) -> tuple[str, ...]:
    return ("-ar", str(sample_rate), "-c:a", "libmp3lame", "-b:a", "8k")  # LAME's lowest


ANCHORS = (
    Anchor("Opus, 0.5 kbit/s asked for (the lowest that is taken)", "opus", _opus(500)),
    Anchor("Opus, 2 kbit/s asked for (the lowest that sounds)", "opus", _opus(2000)),
    Anchor("Opus, 6 kbit/s asked for", "opus", _opus(6000)),
    Anchor("MP3, 8 kbit/s (its lowest), at 8 kHz", "mp3", _mp3(8000)),
    Anchor("MP3, 8 kbit/s, at 16 kHz", "mp3", _mp3(16000)),
)


def missing() -> str | None:
    """Why there can be no anchors, or None."""
    if shutil.which("ffmpeg") is None:
        return "ffmpeg is not installed"
    listed = subprocess.run(
        ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout
    lacking = [name for name in ("libopus", "libmp3lame") if name not in listed]
    return f"this ffmpeg has no {' and no '.join(lacking)}" if lacking else None


def through(
    anchor: Anchor, wav: Float[ndarray, "L"], sample_rate: int
) -> tuple[Float[ndarray, "L"], float]:
    """A recording encoded and decoded, with the delay taken out, and its bit rate.

    Returns:
        The wav at the same rate and length; kbit/s of the file, its container included.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, coded = Path(folder) / "source.wav", Path(folder) / f"coded.{anchor.suffix}"
        soundfile.write(source, wav, sample_rate, subtype="PCM_16")
        _ffmpeg("-i", str(source), *anchor.options, str(coded))
        raw = _ffmpeg("-i", str(coded), "-ar", str(sample_rate), "-ac", "1", "-f", "f32le", "-")
        kbit_s = coded.stat().st_size * 8 / 1000 / (len(wav) / sample_rate)
    decoded = np.zeros(len(wav), dtype=np.float32)
    samples = np.frombuffer(raw, dtype=np.float32)[: len(wav)]
    decoded[: len(samples)] = samples
    return shifted(decoded, -delay_of(decoded, wav, round(LONGEST_LAG_S * sample_rate))), kbit_s


def delay_of(late: Float[ndarray, "L"], wav: Float[ndarray, "L"], longest: int) -> int:
    """By how many samples `late` comes after `wav`: the best of -longest to longest.

    0 where nothing similar is found (cross-correlation below 0.3).
    """
    n_fft = 1 << int(np.ceil(np.log2(2 * len(wav))))
    product = np.fft.rfft(late, n_fft) * np.conj(np.fft.rfft(wav, n_fft))
    correlation = np.fft.irfft(product, n_fft)
    near = np.concatenate([correlation[-longest:], correlation[: longest + 1]])
    norm = np.linalg.norm(late) * np.linalg.norm(wav)
    if norm == 0 or near.max() < 0.3 * norm:
        return 0
    return int(np.argmax(near)) - longest


def shifted(wav: Float[ndarray, "L"], by: int) -> Float[ndarray, "L"]:
    """The wav moved later by so many samples (earlier if negative), with silence moved in."""
    result = np.zeros_like(wav)
    if by >= 0:
        result[by:] = wav[: len(wav) - by]
    else:
        result[:by] = wav[-by:]
    return result


def _ffmpeg(*options: str) -> bytes:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *options], capture_output=True, timeout=TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(options)}: {done.stderr.decode().strip()}")
    return done.stdout
