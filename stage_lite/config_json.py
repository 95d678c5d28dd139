"""A config dataclass from the JSON that it was saved as."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from .errors import StageLiteError

Config = TypeVar("Config")


def config_from_json(cls: type[Config], values: Mapping, what: str) -> Config:
    """Lists become tuples, which JSON does not know.

    Args:
        cls: a dataclass.
        values: field -> value; what is missing keeps its default.
        what: what the message calls it, "codec" for a codec config.

    Raises:
        StageLiteError: a field that the dataclass does not have.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise StageLiteError(
            f"{what} config has unknown fields {unknown}; expected some of {sorted(known)}; "
            "the file may come from a newer version of stage_lite"
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
