"""The one error class of the project."""

from __future__ import annotations


class StageLiteError(ValueError):
    """Something that a user gave or that is missing; says what, got, expected and what to try."""
