"""What a generation leaves behind: its audio, its codes, and what the model saw.

Notebook: 00_quickstart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from .audio import save_audio
from .prefix import Prefix


@dataclass(frozen=True, repr=False)
class Generation:
    """What `StageModel.generate` made, and what the model saw."""

    wav: Float[Tensor, "B C L"]  # in [-1, 1]
    sample_rate: int  # Hz
    codes: Int[Tensor, "B K T"]
    sequence: Int[Tensor, "B K S"]  # context, context token and output, delayed
    prefix: Prefix  # the sequence's masks and positions
    descriptions: tuple[str | None, ...]  # one per row
    seconds_per_step: float  # wall clock, guidance included

    @property
    def duration_s(self) -> float:
        """Seconds of each row."""
        return self.wav.shape[-1] / self.sample_rate

    def save(self, path: str | Path) -> list[Path]:
        """Write .wav, .flac or .ogg; of a batch one file per row: name-0.wav, name-1.wav, ..."""
        path = Path(path)
        if len(self.wav) == 1:
            return [save_audio(path, self.wav[0], self.sample_rate)]
        return [
            save_audio(path.with_stem(f"{path.stem}-{b}"), row, self.sample_rate)
            for b, row in enumerate(self.wav)
        ]

    def play(self, row: int = 0) -> Any:
        """A player for notebooks (IPython.display.Audio) of one row, at its true loudness."""
        from IPython.display import Audio

        return Audio(self.wav[row].cpu().numpy(), rate=self.sample_rate, normalize=False)

    def __len__(self) -> int:
        return len(self.wav)

    def __repr__(self) -> str:
        rows = f"{len(self)} x " if len(self) > 1 else ""
        frames = self.codes.shape[-1]
        return (
            f"Generation({rows}{self.duration_s:.2f} s at {self.sample_rate} Hz, {frames} frames)"
        )
