"""Beat This as a beat tracker, where its package and its weights are there.

A transformer that hears beats far better than librosa does, in most music. Package `beat-this` on
PyPI (MIT); its weights are separate files, and the package fetches them from the authors' server
when they are missing. Stage Lite never does: it looks for the file, and says what to do.

Source: Foscarin, Schlüter and Widmer 2024, Beat This! (ISMIR), arXiv:2407.21658; its
`beat_this.inference.Audio2Beats`. Times come in steps of 20 ms. Notebook: 07_evaluation.
"""

from __future__ import annotations

import functools
import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..errors import StageLiteError

PACKAGE, MODULE = "beat-this", "beat_this"
WEIGHTS_PAGE = "https://cloud.cp.jku.at/index.php/s/7ik4RrBKTS273gp"  # the authors', see its README
SHORTEST_S = 0.1  # of a wav in which a beat is looked for


@dataclass(frozen=True)
class BeatThis:
    """The tracker; loads its weights at the first call, and once for all."""

    file: Path

    def __call__(self, wav: Float[Tensor, "1 L"], sample_rate: int) -> Float[ndarray, "n"]:
        return self.beats_and_downbeats(wav, sample_rate)[0]

    def beats_and_downbeats(
        self, wav: Float[Tensor, "1 L"], sample_rate: int
    ) -> tuple[Float[ndarray, "n"], Float[ndarray, "m"]]:
        """It hears bars, too; each in seconds."""
        if wav.shape[-1] < SHORTEST_S * sample_rate:
            return np.zeros(0), np.zeros(0)
        beats, downbeats = _load(self.file)(wav[0].numpy(), sample_rate)
        return np.asarray(beats, dtype=np.float64), np.asarray(downbeats, dtype=np.float64)


def beat_this(checkpoint: str | Path = "final0") -> BeatThis:
    """The tracker "beat-this", or a sentence on what is missing.

    Args:
        checkpoint: a name of the authors' (final0, 78 MB; small0, 8 MB; ...), whose file is
            expected in torch's hub folder, where the package itself keeps it; or a path to a file.

    Raises:
        StageLiteError: the package is not installed, the file of weights is not there or no
            checkpoint; names both if both are missing.
    """
    missing = []
    if importlib.util.find_spec(MODULE) is None:
        missing.append(f"the package is not installed (try: python -m pip install {PACKAGE})")
    file = _file_of(checkpoint)
    if not file.is_file():
        missing.append(
            f"there are no weights in {file} (download {Path(checkpoint).stem}.ckpt from "
            f"{WEIGHTS_PAGE} and save it under that name, or give the path of a file to "
            "beat_this(path))"
        )
    elif not zipfile.is_zipfile(file):
        missing.append(f"{file} is cut short or no checkpoint of torch (copy it again)")
    if missing:
        raise StageLiteError(
            f"the beat tracker 'beat-this' cannot be used: {'; and '.join(missing)}. "
            "Without it, take tracker='librosa', the default"
        )
    return BeatThis(file)


def _file_of(checkpoint: str | Path) -> Path:
    if Path(checkpoint).suffix or Path(checkpoint).is_file():
        return Path(checkpoint)
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / f"beat_this-{checkpoint}.ckpt"


@functools.lru_cache(maxsize=1)
def _load(file: Path) -> Any:
    from ..upstream import torchaudio

    torchaudio()  # beat_this imports it; here without its compiled part where that cannot load
    from beat_this.inference import Audio2Beats

    try:
        return Audio2Beats(checkpoint_path=str(file), device="cpu", dbn=False)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StageLiteError(
            f"{file} could not be loaded as weights of Beat This ({error}); expected a checkpoint "
            f"from {WEIGHTS_PAGE}; copy it again"
        ) from error
