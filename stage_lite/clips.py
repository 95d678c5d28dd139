"""A sound with its name and what to listen for, as a player that needs no network.

The same HTML serves notebooks and the page of the demo: the browser's own player (keyboard and
screen reader work), the audio inside the page. MP3, because every browser and every notebook front
end plays it and 8 s take about 60 kB; a notebook that is saved stays small. Files on disk are WAV.

Notebook: 00_quickstart.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

import soundfile
from jaxtyping import Float
from torch import Tensor

from .audio import check_wav, resample, to_mono

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz


@dataclass(frozen=True, repr=False)
class Clip:
    """A player in a notebook: the last line of a cell shows it.

    clip = Clip("drums", out.wav[0], out.sample_rate, listen_for="does it keep the beat?")
    """

    name: str
    wav: Float[Tensor, "C L"]  # in [-1, 1]
    sample_rate: int  # Hz
    listen_for: str = ""

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.wav.shape[-1] / self.sample_rate

    def mp3(self) -> bytes:
        """Mono, at most 48 kHz, about 60 kbit/s."""
        wav = to_mono(check_wav(self.wav, self.sample_rate, name=self.name))
        rate = min((r for r in MP3_RATES if r >= self.sample_rate), default=MP3_RATES[-1])
        samples = resample(wav, self.sample_rate, rate)[0].numpy()
        buffer = io.BytesIO()
        with soundfile.SoundFile(
            buffer, "w", rate, 1, "MPEG_LAYER_III", format="MP3", compression_level=0.5
        ) as file:
            file.write(samples)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """A figure: name, player, what to listen for. All words are text, never HTML."""
        name, listen_for = html.escape(self.name), html.escape(self.listen_for)
        audio = base64.b64encode(self.mp3()).decode("ascii")
        note = (
            f'<div class="listen-for"><em>Listen for:</em> {listen_for}</div>' if listen_for else ""
        )
        return (
            f'<figure class="clip" style="margin:0 0 1em 0">'
            f"<figcaption><strong>{name}</strong> ({self.duration_s:.1f} s)</figcaption>"
            f'<audio controls preload="metadata" aria-label="{name}" '
            f'src="data:audio/mpeg;base64,{audio}" style="width:100%;max-width:32em"></audio>'
            f"{note}</figure>"
        )

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {self.duration_s:.2f} s at {self.sample_rate} Hz)"


@dataclass(frozen=True)
class Clips:
    """Several players below one another."""

    clips: list[Clip]

    def _repr_html_(self) -> str:
        return "".join(clip._repr_html_() for clip in self.clips)
