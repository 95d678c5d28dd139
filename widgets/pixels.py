"""Pictures of tables of numbers for static twins: one number per pixel, a palette, a few kB."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

Colour = tuple[int, int, int]
# The same stops as in static/palette.js.
_CIVIDIS = [(0, 34, 78), (65, 77, 107), (124, 123, 120), (188, 175, 111), (254, 232, 56)]


def cividis(n: int) -> list[Colour]:
    """n colours from dark blue to yellow, told apart by colour-blind readers too."""
    at = np.linspace(0, len(_CIVIDIS) - 1, n)
    stops = np.array(_CIVIDIS)
    columns = [np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    return [tuple(round(float(v)) for v in colour) for colour in zip(*columns, strict=True)]


def pixel_img(
    pixels: UInt8[ndarray, "h w"],
    colours: Sequence[Colour],
    alt: str,
    width: int,
    height: int,
) -> str:
    """An <img> whose pixel values are numbers of colours.

    Args:
        pixels: rows from top to bottom, each below len(colours).
        colours: at most 256.
        alt: what the picture shows, any text.
        width, height: on the page, in CSS pixels; it shrinks with the page.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels), mode="P")
    image.putpalette([value for colour in colours for value in colour])
    buffer = io.BytesIO()
    bits = 4 if len(colours) <= 16 else 8
    image.save(buffer, "PNG", optimize=True, bits=bits)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" '
        f'style="max-width:100%;image-rendering:pixelated" src="data:image/png;base64,{data}">'
    )
