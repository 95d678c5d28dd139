"""Audio in and out: read, write, resample, mix, levels, and every check of what a user gives.

A wav is Float[C, L] in [-1, 1]: channels first, L in samples. Files are read and written with
soundfile (WAV, FLAC, OGG, MP3). Notebook: 00_quickstart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .files import atomic

SAMPLE_RATES = (8_000, 192_000)  # Hz, lowest and highest that are taken
MAX_CHANNELS = 8
MAX_S = 3600.0  # of one file in memory
MAX_PEAK = 4.0  # 12 dB over full scale; beyond, the samples are no [-1, 1] audio
FORMATS = {  # suffix -> (format, subtype)
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}


def load_audio(
    path: str | Path, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[Float[Tensor, "C L"], int]:
    """Read a sound file, or a part of it.

    Args:
        path: WAV, FLAC, OGG or MP3; 8 to 192 kHz, 1 to 8 channels, any bit depth.
        start_s: where to begin; past the end is an error.
        duration_s: how much to read, cut at the end of the file; None reads to the end.

    Returns:
        The wav at the file's own rate and channels, and the sample rate in Hz. Ten minutes are
        fine, more than an hour at once is refused. Overs up to 12 dB are clipped to [-1, 1]. A WAV
        or OGG file that was cut short is read as far as it goes.

    Raises:
        StageLiteError: no such file, not audio, empty, cut short, NaN or infinite samples, or a
            rate or channel count that is out of range.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise StageLiteError(f"{path} {what}; expected a WAV, FLAC, OGG or MP3 file")
    if path.stat().st_size == 0:
        raise StageLiteError(f"{path} is empty (0 bytes); expected a sound file; copy it again")
    try:
        with soundfile.SoundFile(path) as file:
            sample_rate, frames = file.samplerate, file.frames
            _check_rate(sample_rate, str(path))
            _check_channels(file.channels, str(path))
            start = round(start_s * sample_rate)
            if start_s < 0 or (duration_s is not None and duration_s <= 0):
                raise StageLiteError(
                    f"asked for {duration_s} s from {start_s} s of {path}; "
                    "expected a start of at least 0 and a duration above 0"
                )
            if frames == 0:
                raise StageLiteError(f"{path} holds no samples; expected at least one")
            if start >= frames:
                raise StageLiteError(
                    f"{path} is {frames / sample_rate:.2f} s long; asked for audio from "
                    f"{start_s} s on"
                )
            wanted = frames - start
            if duration_s is not None:
                wanted = min(wanted, max(1, round(duration_s * sample_rate)))
            if wanted > MAX_S * sample_rate:
                raise StageLiteError(
                    f"{path} is {wanted / sample_rate / 60:.0f} min long; expected at most "
                    f"{MAX_S / 60:.0f} min at once; read a part with start_s and duration_s"
                )
            file.seek(start)
            samples = file.read(wanted, dtype="float32", always_2d=True)  # [L, C]
    except (soundfile.LibsndfileError, TypeError) as error:
        detail = getattr(error, "error_string", str(error))
        raise StageLiteError(
            f"{path} could not be read as audio ({detail}); expected WAV, FLAC, OGG or MP3; "
            "convert it first, for instance with: ffmpeg -i in.m4a out.wav"
        ) from None
    # The length of an MP3 file without an index is an estimate.
    if len(samples) < (0.9 if file.format == "MP3" else 1.0) * wanted:
        raise StageLiteError(
            f"{path} is cut short: {len(samples)} of {wanted} samples could be read; copy it again"
        )
    wav = check_wav(np.ascontiguousarray(samples.T), sample_rate, name=str(path))
    return wav, sample_rate


def save_audio(path: str | Path, wav: Float[Tensor, "C L"] | ndarray, sample_rate: int) -> Path:
    """Write a wav as .wav or .flac (16 bit) or .ogg (Vorbis), chosen by the suffix.

    The file appears whole or not at all; missing folders are made. Samples are clipped to [-1, 1].

    Raises:
        StageLiteError: another suffix, or a wav that `check_wav` refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise StageLiteError(
            f"cannot write {path.name!r}: unknown suffix; expected one of {sorted(FORMATS)}"
        )
    samples = check_wav(wav, sample_rate, name="wav to save").numpy().T  # [L, C]
    format_, subtype = FORMATS[path.suffix.lower()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic(path) as temporary,
        soundfile.SoundFile(
            temporary, "w", int(sample_rate), samples.shape[1], subtype, format=format_
        ) as file,
    ):
        # libsndfile's Vorbis writer overflows its stack on one long write.
        for start in range(0, len(samples), int(sample_rate)):
            file.write(samples[start : start + int(sample_rate)])
    return path


def check_wav(
    wav: Tensor | ndarray | Sequence[float],
    sample_rate: int,
    *,
    name: str = "wav",
    min_samples: int = 1,
) -> Float[Tensor, "C L"]:
    """The wav as Float[C, L] in [-1, 1], or one sentence on what is wrong with it.

    Args:
        wav: tensor, array or list; [L] is taken as mono. int16, int32 and uint8 are scaled by
            their full scale; float overs up to 12 dB are clipped. Silence is allowed: ask
            `is_silent` where it matters.
        sample_rate: 8 to 192 kHz.
        name: what to call it in the message.
        min_samples: fewest samples that are of use; one sample is legal by default.

    Raises:
        StageLiteError: not [C, L] or [L], 0 or more than 8 channels, too few samples, NaN or
            infinite samples, integers of no audio type, samples far outside [-1, 1].
    """
    _check_rate(sample_rate, name)
    if not isinstance(wav, Tensor):
        try:
            wav = torch.from_numpy(np.array(wav))  # a copy: read-only arrays warn in torch
        except (TypeError, ValueError) as error:
            raise StageLiteError(
                f"{name} is a {type(wav).__name__} that holds no array of numbers ({error}); "
                "expected Float[C, L] in [-1, 1]"
            ) from None
    if wav.dim() == 1:
        wav = wav[None]
    if wav.dim() != 2:
        raise StageLiteError(
            f"{name} has shape {tuple(wav.shape)}; expected [C, L] or [L]; "
            "take one item of a batch with wav[0]"
        )
    if wav.shape[0] > MAX_CHANNELS >= wav.shape[1] > 0:
        raise StageLiteError(
            f"{name} has shape {tuple(wav.shape)}; expected [C, L], channels first; "
            "it looks like [L, C]: pass wav.T"
        )
    _check_channels(wav.shape[0], name)
    if wav.shape[1] < min_samples:
        raise StageLiteError(
            f"{name} has {wav.shape[1]} samples; expected at least {min_samples}"
            f" ({min_samples / sample_rate:.3g} s)"
        )
    wav = _to_float(wav.detach().cpu(), name)
    if not torch.isfinite(wav).all():
        channel, place = (int(i) for i in (~torch.isfinite(wav)).nonzero()[0])
        raise StageLiteError(
            f"{name} has NaN or infinite samples, the first in channel {channel} at sample {place} "
            f"({place / sample_rate:.3f} s); expected numbers in [-1, 1]; "
            "torch.nan_to_num replaces them"
        )
    peak = float(wav.abs().max())
    if peak > MAX_PEAK:
        raise StageLiteError(
            f"{name} has samples up to {peak:.4g}; expected [-1, 1]; if they are 16-bit integers "
            "stored as floats, divide by 32768, else by the peak"
        )
    return wav.clamp(-1.0, 1.0)


def resample(wav: Float[Tensor, "C L"], from_hz: int, to_hz: int) -> Float[Tensor, "C L2"]:
    """Change the sample rate (band-limited, soxr HQ); L2 = round(L * to_hz / from_hz), at least 1.

    Any two rates will do: 44,056 Hz costs no more than 44,100 Hz.
    """
    _check_rate(from_hz, "wav")
    _check_rate(to_hz, "resampled wav")
    if from_hz == to_hz:
        return wav
    length = max(1, round(wav.shape[-1] * to_hz / from_hz))
    samples = wav.detach().cpu().to(torch.float32).numpy().T  # [L, C]
    changed = soxr.resample(np.ascontiguousarray(samples), from_hz, to_hz, quality="HQ")
    changed = torch.from_numpy(np.ascontiguousarray(changed.T))  # [C, about L2]
    return torch.nn.functional.pad(changed, (0, length - changed.shape[-1]))


def to_mono(wav: Float[Tensor, "C L"]) -> Float[Tensor, "1 L"]:
    """The mean of all channels."""
    return wav.mean(dim=0, keepdim=True)


def prepare(
    wav: Tensor | ndarray | Sequence[float],
    sample_rate: int,
    to_hz: int,
    *,
    name: str = "wav",
    min_samples: int = 1,
) -> Float[Tensor, "1 L"]:
    """What a model takes: checked, mono, at the model's sample rate."""
    wav = check_wav(wav, sample_rate, name=name, min_samples=min_samples)
    return resample(to_mono(wav), int(sample_rate), to_hz).clamp(-1.0, 1.0)


def mix(
    wavs: Sequence[Float[Tensor, "C _"]], gains_db: Sequence[float] | None = None
) -> Float[Tensor, "C L"]:
    """The sum of wavs of one sample rate, as long as the longest.

    The sum is left as it is, as STAGE does; only if it leaves [-1, 1] it is turned down as a whole,
    so that it never clips.

    Args:
        wavs: at least one; shorter ones end in silence.
        gains_db: of each wav before the sum; None is 0 dB.
    """
    if not wavs:
        raise StageLiteError("mix got no wavs; expected at least one")
    channels = {wav.shape[0] for wav in wavs}
    if len(channels) > 1:
        raise StageLiteError(
            f"mix got wavs of {sorted(channels)} channels; expected one number of channels; "
            "pass them through stage_lite.audio.to_mono"
        )
    if gains_db is not None and len(gains_db) != len(wavs):
        raise StageLiteError(
            f"mix got {len(gains_db)} gains for {len(wavs)} wavs; expected as many"
        )
    total = torch.zeros(channels.pop(), max(wav.shape[-1] for wav in wavs))
    for wav, gain_db in zip(wavs, gains_db or [0.0] * len(wavs), strict=True):
        total[:, : wav.shape[-1]] += wav * 10 ** (gain_db / 20)
    return limit(total)


def limit(wav: Float[Tensor, "C L"]) -> Float[Tensor, "C L"]:
    """Turn a wav down as a whole if its peak is above 1."""
    peak = float(wav.abs().max()) if wav.numel() else 0.0
    return wav / peak if peak > 1.0 else wav


def level_db(wav: Float[Tensor, "*shape"]) -> float:
    """RMS level in dBFS; -inf for digital silence and for no samples."""
    power = float(wav.double().square().mean()) if wav.numel() else 0.0
    return 10 * float(np.log10(power)) if power > 0 else -float("inf")


def rms_db(wav: Float[Tensor, "C L"], sample_rate: int) -> Float[ndarray, "seconds"]:
    """RMS level of each second in dBFS, -120 at the lowest; the last second may be shorter."""
    mono = wav.double().square().mean(dim=0)
    levels = [float(second.mean()) for second in mono.split(int(sample_rate)) if len(second)]
    return 10 * np.log10(np.maximum(np.array(levels, dtype=np.float64), 1e-12))


def is_silent(wav: Float[Tensor, "C L"], below_db: float = -60.0) -> bool:
    """Is the RMS level of the whole wav below this many dBFS?"""
    return level_db(wav) < below_db


def normalise_level(wav: Float[Tensor, "C L"], to_db: float = -20.0) -> Float[Tensor, "C L"]:
    """Bring the RMS level to so many dBFS, less if the peak would pass 1; silence stays silence."""
    level = level_db(wav)
    return wav if level == -float("inf") else limit(wav * 10 ** ((to_db - level) / 20))


def _check_rate(sample_rate: object, name: str) -> None:
    lowest, highest = SAMPLE_RATES
    whole = isinstance(sample_rate, int | np.integer) or (
        isinstance(sample_rate, float) and sample_rate.is_integer()
    )
    if isinstance(sample_rate, bool) or not whole or not lowest <= sample_rate <= highest:
        raise StageLiteError(
            f"{name} has sample rate {sample_rate!r}; expected a whole number of Hz from {lowest} "
            f"to {highest}"
        )


def _check_channels(channels: int, name: str) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise StageLiteError(
            f"{name} has {channels} channels; expected 1 to {MAX_CHANNELS}; mix some of them first"
        )


def _to_float(wav: Tensor, name: str) -> Float[Tensor, "C L"]:
    if wav.dtype.is_floating_point:
        return wav.to(torch.float32)
    scale = {torch.int16: 2.0**15, torch.int32: 2.0**31, torch.uint8: 2.0**7}.get(wav.dtype)
    if scale is None:
        raise StageLiteError(
            f"{name} holds {str(wav.dtype).removeprefix('torch.')} numbers; expected floats in "
            "[-1, 1], or int16, int32 or uint8 samples; cast to the type of your samples first"
        )
    wav = wav.to(torch.float64)
    return ((wav - 128.0 if scale == 2.0**7 else wav) / scale).to(torch.float32)
