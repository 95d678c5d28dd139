"""What may be asked of the accompanist and what reaches it, checked: settings, stems, audio, names.

Notebook: 00_quickstart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from stage_lite.audio import check_wav, load_audio
from stage_lite.errors import StageLiteError

from .stem_input import check_name, is_number

STEMS = ("drums", "bass", "keys", "guitar")  # that nano was trained on
MAX_STEMS = 32  # to choose from
MAX_WORDS_LENGTH = 300  # characters
MAX_GUIDANCE = 20.0
MAX_SEED = 2**31 - 1


def checked_form(
    stems: Sequence[str], stem: Any, words: Any, cfg_coef: Any, seed: Any
) -> dict[str, Any]:
    """The settings of one take, as they are shown, stored and used.

    Args:
        stems: that can be chosen; `stem` None is the first.
        words, cfg_coef, seed: as in `Accompanist.generate`; from the browser they may be anything.

    Raises:
        StageLiteError: names the setting that is out of range.
    """
    stem = stems[0] if stem is None else stem
    if stem not in stems:
        raise StageLiteError(f"stem is {stem!r}; expected one of {', '.join(stems)}")
    if not isinstance(words, str) or len(words) > MAX_WORDS_LENGTH:
        what = f"{len(words)} characters" if isinstance(words, str) else repr(words)
        raise StageLiteError(f"the words are {what}; expected at most {MAX_WORDS_LENGTH}")
    if not is_number(cfg_coef) or not 0 <= cfg_coef <= MAX_GUIDANCE:
        raise StageLiteError(
            f"guidance is {cfg_coef!r}; expected a number from 0 to {MAX_GUIDANCE:g}, often 3"
        )
    if not is_number(seed) or seed != int(seed) or not 0 <= seed <= MAX_SEED:
        raise StageLiteError(f"seed is {seed!r}; expected a whole number, 0 to {MAX_SEED}")
    return {"stem": stem, "words": words, "cfg_coef": float(cfg_coef), "seed": int(seed)}


def checked_stems(stems: Sequence[str]) -> list[str]:
    """Names to choose from: all different, and none with a comma, which would end it in a text."""
    names = list(stems) if isinstance(stems, Sequence) and not isinstance(stems, str) else [stems]
    fine = all(isinstance(name, str) and name.strip() and "," not in name for name in names)
    for name in names if fine else ():
        check_name(name, "a stem")
    if not names or not fine or len(set(names)) != len(names) or len(names) > MAX_STEMS:
        shown = ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")
        raise StageLiteError(
            f"stems are {len(names)} names ({shown}); expected 1 to {MAX_STEMS} different words "
            f"that the model knows, such as {', '.join(STEMS)}"
        )
    return names


def opened(context: Any, sample_rate: int | None) -> tuple[Any, int, str]:
    """Wav, rate and name of a file or of a wav that a user passes in Python."""
    if isinstance(context, str | Path):
        if sample_rate is not None:
            raise StageLiteError(
                f"sample_rate is {sample_rate!r} beside the file {str(context)!r}; expected None: "
                "the file tells its own"
            )
        return *load_audio(context), shown_name(context)
    if sample_rate is None:
        raise StageLiteError(
            "the context came without a sample rate; expected sample_rate in Hz, the second value "
            "that stage_lite.load_audio returns"
        )
    return context, sample_rate, "context"


def samples_of(content: dict[str, Any]) -> Float[np.ndarray, "L"]:
    """The int16 samples of a message as floats."""
    data = (content.get("buffers") or [b""])[0]
    return np.frombuffer(data, "<i2", len(data) // 2).astype(np.float32) / 32768


def shown_name(name: Any) -> str:
    """A file's name without its folder, of a length that fits; what is no letter becomes "?"."""
    plain = str(name or "sound").replace("\\", "/").rsplit("/", 1)[-1]
    plain = plain.encode("utf-8", "replace").decode("utf-8")
    return plain if len(plain) <= 80 else plain[:60] + "..." + plain[-17:]


def times_of(times: np.ndarray | None) -> list[float]:
    """Seconds for the browser; none where they are not known."""
    return [] if times is None else [round(float(t), 4) for t in times]


def taken(out: Any, sample_rate: int) -> Float[Tensor, "C L"]:
    """The audio of what a model's `generate` returned, checked as a stem is."""
    wav = getattr(out, "wav", None)
    if wav is None:
        raise StageLiteError(
            f"model.generate returned a {type(out).__name__}; expected a Generation, with .wav"
        )
    return check_wav(wav[0].detach().cpu(), sample_rate, name="what the model made")
