"""What a user may ask for: one row or a batch, checked before anything is computed.

A single context or description serves every row of a batch; lists must agree in length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import StageLiteError

PRECISIONS = ("fp32", "bf16", "int8")  # names in the API; fp32 is here


def check_precision(weights: str) -> None:
    """Only fp32 for now."""
    if weights == "fp32":
        return
    if weights in PRECISIONS:
        raise StageLiteError(
            f"weights={weights!r} comes with a later version; expected 'fp32', for all machines"
        )
    raise StageLiteError(f"weights is {weights!r}; expected 'fp32'")


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
