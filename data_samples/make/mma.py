"""Run MMA (Musical MIDI Accompaniment) on a chart and read back its MIDI."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from data_samples.make.midi import Midi, read_midi

LIBRARY = Path("/usr/share/mma/lib")


class MmaError(ValueError):
    """MMA refused a chart; the message is MMA's own."""


def have_mma() -> bool:
    """True when the program `mma` and its style library are installed."""
    return shutil.which("mma") is not None and LIBRARY.is_dir()


def run_mma(text: str, max_seconds: float = 30.0) -> Midi:
    """Turn MMA source text into tracks of notes.

    Args:
        text: a whole MMA file; put `RndSeed` first to make the result repeatable.
    Raises:
        MmaError: MMA could not compile the text.
    """
    with tempfile.TemporaryDirectory(prefix="mma-") as folder:
        source, target = Path(folder) / "song.mma", Path(folder) / "song.mid"
        source.write_text(text)
        try:
            done = subprocess.run(
                ["mma", "-w", str(source), "-f", str(target)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=max_seconds,
                env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "HOME": folder},
            )
        except subprocess.TimeoutExpired as error:
            raise MmaError(f"MMA did not finish in {max_seconds} s.") from error
        if done.returncode or not target.exists():
            raise MmaError(" ".join((done.stdout + done.stderr).split())[-300:])
        return read_midi(target)
