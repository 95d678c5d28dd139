"""Audio on its way to the browser: 16-bit samples of all clips of a widget in one run of bytes.

    bytes   | drums left | drums right | bass | ...      int16, little-endian, planar
    index   [{"name": "drums", "offset": 0, "channels": 2, "samples": 96000}, ...]

The widget reads them without a decoder, so that sample n of a clip is sample n in the browser.
Clips that would be too many bytes are sent at a lower rate, never silently: see `Packed.note`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stage_lite.errors import StageLiteError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LIMIT_BYTES = 8_000_000  # sent per widget
LOWEST_RATE = 8_000  # Hz; below, music cannot be judged
MAX_CHANNELS = 2
_RATES = (192_000, 96_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)


@dataclass(frozen=True)
class Packed:
    """What is sent: bytes, where each clip stands in them, and the one rate of all of them."""

    data: bytes
    index: list[dict[str, Any]]
    sample_rate: int  # Hz
    note: str  # a sentence for the listener where something was changed, else ""

    def clip(self, name: str) -> Float[np.ndarray, "C L"]:
        """The samples of a clip as the browser hears them, Float[C, L] in [-1, 1)."""
        entry = next(e for e in self.index if e["name"] == name)
        count = entry["channels"] * entry["samples"]
        samples = np.frombuffer(self.data, "<i2", count, entry["offset"])
        return samples.reshape(entry["channels"], -1).astype(np.float32) / 32768


def pack(
    wavs: Mapping[str, Float[Tensor, "C _"]], sample_rate: int, *, limit_bytes: int = LIMIT_BYTES
) -> Packed:
    """Clips of one sample rate as bytes.

    Args:
        wavs: name -> Float[C, L] in [-1, 1], as `stage_lite.audio.check_wav` returns them. More
            than two channels become one.
        sample_rate: of all of them, Hz.
        limit_bytes: above it, the rate is lowered to the next usual one that fits.

    Raises:
        StageLiteError: even at 8 kHz they are too long; says how long they may be.
    """
    from stage_lite.audio import resample, to_mono

    notes = []
    wavs = {n: w if w.shape[0] <= MAX_CHANNELS else to_mono(w) for n, w in wavs.items()}
    total = sum(2 * wav.numel() for wav in wavs.values())
    rates = [sample_rate, *(rate for rate in _RATES if LOWEST_RATE <= rate < sample_rate)]
    fits = [rate for rate in rates if total * rate / sample_rate <= limit_bytes]
    if not fits:
        seconds = sum(w.numel() for w in wavs.values()) / sample_rate
        raise StageLiteError(
            f"{len(wavs)} clips of {seconds:.0f} s together are too long for one widget; expected "
            f"at most {limit_bytes / 2 / LOWEST_RATE:.0f} s together; show a part: wav[:, :n]"
        )
    if fits[0] != sample_rate:
        notes.append(f"Sent at {fits[0]} Hz instead of {sample_rate} Hz, to stay small.")
        wavs = {name: resample(wav, sample_rate, fits[0]) for name, wav in wavs.items()}
    index, parts, offset = [], [], 0
    for name, wav in wavs.items():
        samples = np.rint(wav.numpy() * 32768).clip(-32768, 32767).astype("<i2")
        channels, length = samples.shape
        index.append({"name": name, "offset": offset, "channels": channels, "samples": length})
        parts.append(samples.tobytes())
        offset += 2 * samples.size
    return Packed(b"".join(parts), index, fits[0], " ".join(notes))
