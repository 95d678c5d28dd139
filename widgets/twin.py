"""Small players and pictures for the static twin of a widget: what GitHub and exported pages show.

A notebook is saved with them, so they are kept small: a waveform of two colours is a PNG of about
1 kB, a player holds the first seconds in a plain MP3.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Okabe and Ito's; the same as in static/palette.js and stage_lite.plots.
PALETTE = {
    "drums": "#D55E00",
    "bass": "#0072B2",
    "keys": "#009E73",
    "guitar": "#E69F00",
    "other": "#CC79A7",
    "mix": "#56B4E9",
}
PLAYER_BYTES = 24_000  # of the MP3 in a twin
PLAYER_S = 8.0
PLAYER_HZ = 16_000


def colour_of(name: str, place: int = 0) -> str:
    """A stem's own colour; others take the colours in turn."""
    return PALETTE.get(name.lower(), list(PALETTE.values())[place % len(PALETTE)])


def wave_img(
    wav: Float[Tensor, "C L"],
    sample_rate: int,
    colour: str,
    name: str,
    downbeats: Sequence[float] = (),
    width: int = 560,
    height: int = 40,
) -> str:
    """An <img> of a waveform over bar lines, with its alt text.

    Args:
        wav: Float[C, L] in [-1, 1]; its first channel is drawn.
        colour: "#RRGGBB".
        name: of the clip, any text.
        downbeats: seconds.
    """
    from PIL import Image

    samples = np.asarray(wav[0])
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    starts = np.minimum(edges[:-1], len(samples) - 1)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    middle = (height - 1) / 2
    rows = np.arange(height)[:, None]
    inside = (rows >= np.floor(middle - np.maximum(high, 0) * middle)) & (
        rows <= np.ceil(middle - np.minimum(low, 0) * middle)
    )
    pixels = np.zeros((height, width), np.uint8)
    duration_s = len(samples) / sample_rate
    places = [int(t / duration_s * width) for t in downbeats if 0 <= t < duration_s]
    pixels[:, places] = 1
    pixels[inside] = 2
    image = Image.fromarray(pixels, mode="L").convert("P")
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    image.putpalette([255, 255, 255, 200, 200, 200, *rgb])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, bits=2)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    loud = f"{20 * np.log10(level):.0f} dBFS on average" if level > 1e-5 else "silent"
    alt = html.escape(f"Waveform of {name}: {duration_s:.1f} s, {loud}, {len(places)} bar lines")
    return (
        f'<img alt="{alt}" width="{width}" height="{height}" style="max-width:100%;background:#fff"'
        f' src="data:image/png;base64,{data}">'
    )


def player(
    wav: Float[Tensor, "C L"], sample_rate: int, name: str, max_bytes: int = PLAYER_BYTES
) -> str:
    """An <audio> with the beginning of a clip; says how much of it, where it is not all.

    Args:
        wav: Float[C, L] in [-1, 1].
        max_bytes: of the MP3; fewer seconds where it would be more.
    """
    import soundfile

    from stage_lite.audio import resample, to_mono

    whole_s = wav.shape[-1] / sample_rate
    part = to_mono(wav[:, : max(1, int(PLAYER_S * sample_rate))])
    samples = resample(part, sample_rate, PLAYER_HZ)[0].numpy()
    while True:
        buffer = io.BytesIO()
        with soundfile.SoundFile(
            buffer, "w", PLAYER_HZ, 1, "MPEG_LAYER_III", format="MP3", compression_level=0.9
        ) as file:
            file.write(samples)
        size = len(buffer.getvalue())
        if size <= max_bytes or len(samples) < PLAYER_HZ:
            break
        samples = samples[: int(0.95 * len(samples) * max_bytes / size)]
    part_s = len(samples) / PLAYER_HZ
    shown = f"{name}, the first {part_s:.1f} of {whole_s:.1f} s"
    if part_s > whole_s - 0.05:
        shown = f"{name}, {whole_s:.1f} s"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = html.escape(shown)
    return (
        f'<p>{text}<br><audio controls preload="metadata" aria-label="{text}" '
        f'src="data:audio/mpeg;base64,{data}" style="width:100%;max-width:32em"></audio></p>'
    )
