"""What a user may give as stems, made into clips of one rate and one length.

    {"drums": wav, "bass": (wav, 44100), "keys": "keys.wav",
     "guitar": {"with context": wav, "shuffled": wav}}

A stem is a wav, a wav with its rate, a file, or several versions of one of these by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stage_lite.errors import StageLiteError

if TYPE_CHECKING:
    from torch import Tensor

MAX_STEMS = 8
MAX_VERSIONS = 8
ONLY = "only"  # the version of a stem that has no versions
HEARD_SAMPLES = 400  # shorter clips cannot be heard


@dataclass(frozen=True)
class Stems:
    """Checked stems: name -> version -> Float[C, L], all of one rate and length."""

    wavs: dict[str, dict[str, Tensor]]
    sample_rate: int  # Hz
    notes: list[str]  # sentences on what was changed

    @property
    def samples(self) -> int:
        """Length of every clip."""
        return next(iter(next(iter(self.wavs.values())).values())).shape[-1]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


def read_stems(stems: Any, sample_rate: int | None) -> Stems:
    """Check stems and bring them to one rate and one length.

    Args:
        stems: see the top of this file; one to eight of them.
        sample_rate: of wavs that come without one, Hz; the result has it too. None: all bring
            their own, and the highest counts.

    Raises:
        StageLiteError: no stems or too many, an empty clip, NaN, no rate, a file that is no audio.
    """
    from stage_lite.audio import resample

    if not isinstance(stems, Mapping):
        raise StageLiteError(
            f"stems is a {type(stems).__name__}; expected names with their audio: "
            '{"drums": wav, "bass": wav}'
        )
    if not 1 <= len(stems) <= MAX_STEMS:
        raise StageLiteError(
            f"got {len(stems)} stems; expected 1 to {MAX_STEMS}; add some of them up first with "
            "stage_lite.audio.mix"
        )
    found: dict[str, dict[str, tuple[Tensor, int]]] = {}
    for name, value in stems.items():
        check_name(name, "a stem")
        versions = value if isinstance(value, Mapping) else {ONLY: value}
        if not 1 <= len(versions) <= MAX_VERSIONS:
            raise StageLiteError(
                f"stem {name!r} has {len(versions)} versions; expected 1 to {MAX_VERSIONS}"
            )
        found[name] = {}
        for version, audio in versions.items():
            check_name(version, f"a version of stem {name!r}")
            title = f"stem {name!r}" if version == ONLY else f"version {version!r} of stem {name!r}"
            found[name][version] = read_clip(audio, sample_rate, title)
    clips = [clip for versions in found.values() for clip in versions.values()]
    rate = int(sample_rate or max(own for _, own in clips))
    wavs = {
        name: {version: resample(wav, own, rate) for version, (wav, own) in versions.items()}
        for name, versions in found.items()
    }
    longest = max(wav.shape[-1] for versions in wavs.values() for wav in versions.values())
    notes = []
    for name, versions in wavs.items():
        for version, wav in versions.items():
            title = name if version == ONLY else f"{name} ({version})"
            if found[name][version][1] != rate:
                notes.append(f"{title}: {found[name][version][1]} Hz, played at {rate} Hz.")
            if wav.shape[0] > 2:
                notes.append(f"{title}: {wav.shape[0]} channels, played as one.")
            if wav.shape[-1] < longest:
                notes.append(f"{title} ends at {wav.shape[-1] / rate:.2f} s.")
            versions[version] = _whole(wav, longest)
    return Stems(wavs, rate, notes)


def read_clip(audio: Any, sample_rate: int | None, name: str) -> tuple[Tensor, int]:
    """One wav, (wav, rate) or file, checked, and its own rate."""
    from stage_lite.audio import check_wav, load_audio

    if isinstance(audio, str | Path):
        wav, own = load_audio(audio)
        return check_wav(wav, own, name=name, min_samples=HEARD_SAMPLES), own
    own = sample_rate
    if isinstance(audio, tuple) and len(audio) == 2 and getattr(audio[0], "ndim", 0):
        audio, own = audio
    if own is None:
        raise StageLiteError(
            f"{name} has no sample rate; expected sample_rate=32000 for all, or (wav, 32000)"
        )
    return check_wav(audio, own, name=name, min_samples=HEARD_SAMPLES), int(own)


def check_name(name: Any, what: str) -> None:
    """Any text of 1 to 200 letters: it is shown as text, whatever it holds."""
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise StageLiteError(f"{what} is named {name!r:.80}; expected a text of 1 to 200 letters")
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # half a letter, of a file system
        raise StageLiteError(f"{what} is named {name!r}, which no browser can show; rename it")


def is_number(value: Any) -> bool:
    """A finite number; True and False are none."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and bool(abs(value) < float("inf"))


def _whole(wav: Tensor, samples: int) -> Tensor:
    """At most two channels, and silence up to a length."""
    import torch

    from stage_lite.audio import to_mono

    wav = to_mono(wav) if wav.shape[0] > 2 else wav
    return torch.nn.functional.pad(wav, (0, samples - wav.shape[-1]))
