"""What a user may ask for: one row or a batch, checked before anything is computed.

A single context or description serves every row of a batch; lists must agree in length.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from .errors import StageLiteError


def window_request(
    n_frames: int,
    window_s: Any,
    stride_s: Any,
    trained_s: float,
    frame_rate: float,
    name: str,
) -> dict[str, int]:
    """`window_frames` and `stride_frames` for `generate_codes`; empty if one window will do.

    Args:
        n_frames: of the whole target.
        window_s, stride_s: what the user asked for, or None.
        trained_s, frame_rate, name: of the model.

    Raises:
        StageLiteError: a window or a stride that is no number of seconds, or does not fit.
    """
    trained = round(trained_s * frame_rate)
    shortest_s = 2 / frame_rate
    window_s = _seconds("window_s", window_s, trained_s, shortest_s, f"{shortest_s:g} on")
    window = round(window_s * frame_rate)
    stride_s = _seconds(
        "stride_s", stride_s, window // 2 / frame_rate, 1 / frame_rate,
        f"{1 / frame_rate:g} to less than the {window_s:g} of a window, which begins with the end "
        "of what is written",
    )  # fmt: skip
    stride = round(stride_s * frame_rate)
    if stride >= window:
        raise StageLiteError(
            f"stride_s is {stride_s:g}; expected seconds below the {window_s:g} of a window, which "
            "begins with the end of what is written"
        )
    if window > trained and n_frames > trained:
        warnings.warn(
            f"window_s is {window_s:g}, {name!r} was trained on {trained_s:g} s; what comes later "
            "in a window may lose the beat",
            stacklevel=5,
        )
    if n_frames <= window:
        return {}
    if window <= trained:
        warnings.warn(
            f"duration_s is {n_frames / frame_rate:g}, {name!r} was trained on {trained_s:g} s: "
            f"written in windows of {window_s:g} s, each goes on from the last "
            f"{window_s - stride_s:g} s",
            stacklevel=5,
        )
    return {"window_frames": window, "stride_frames": stride}


def _seconds(name: str, value: Any, otherwise: float, lowest: float, expected: str) -> float:
    if value is None:
        return otherwise
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not fine or not lowest <= value < float("inf"):
        raise StageLiteError(f"{name} is {value!r}; expected seconds from {expected}")
    return float(value)


def context_rows(context: Any) -> list[Any] | None:
    """One entry per row of the batch; None: no context was given."""
    if context is None:
        return None
    if isinstance(context, str | Path):
        raise StageLiteError(
            f"context is the text {str(context)!r}; expected audio: "
            "wav, sample_rate = stage_lite.load_audio(path)"
        )
    if getattr(context, "ndim", 0) == 3:
        return list(context)
    if isinstance(context, list | tuple):
        if not context:
            raise StageLiteError("context is an empty list; expected at least one wav, or None")
        return [context] if isinstance(context[0], int | float) else list(context)
    return [context]


def description_rows(description: Any) -> list[str | None]:
    """One text or None per row."""
    texts = [description] if description is None or isinstance(description, str) else description
    if not isinstance(texts, list | tuple) or not texts:
        raise StageLiteError(
            f"description is {texts!r}; expected a string, None or a list with one of them per row"
        )
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise StageLiteError(
                f"description holds a {type(text).__name__}; expected strings or None"
            )
    return list(texts)


def rate_rows(sample_rate: Any, contexts: list[Any] | None) -> list[Any]:
    """One sample rate per context."""
    n_contexts = 0 if contexts is None else len(contexts)
    if not isinstance(sample_rate, list | tuple):
        return [sample_rate] * n_contexts
    if len(sample_rate) != n_contexts:
        raise StageLiteError(
            f"context_sample_rate has {len(sample_rate)} values for {n_contexts} contexts; "
            "expected one for all or one each"
        )
    return list(sample_rate)


def batch_size(**lists: list | None) -> int:
    """The length of the batch: equal for all lists that are longer than one."""
    lengths = {name: len(rows) for name, rows in lists.items() if rows is not None}
    n_batch = max(lengths.values())
    if any(n not in (1, n_batch) for n in lengths.values()):
        shown = " and ".join(f"{n} {name}s" for name, n in lengths.items())
        raise StageLiteError(f"got {shown}; expected equally many, or a single one for all rows")
    return n_batch
