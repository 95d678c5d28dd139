"""A model as a user may give it to a widget that needs its codec and its sizes."""

from __future__ import annotations

from typing import Any

from stage_lite.errors import StageLiteError


def check_model(model: Any) -> None:
    """Refuse what is no StageModel.

    Raises:
        StageLiteError: a name, a folder, None, ...; says how a model is loaded.
    """
    if not all(hasattr(model, name) for name in ("codec", "lm", "n_q", "card", "frame_rate")):
        shown = f"{model!r:.80}" if isinstance(model, str) else f"a {type(model).__name__}"
        raise StageLiteError(
            f"model is {shown}; expected a StageModel, for instance stage_lite.load('nano')"
        )
