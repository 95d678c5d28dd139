"""The one error that this library raises on bad input."""


class StageLiteError(ValueError):
    """A sentence that says what is wrong, what came, what was expected and what to try."""
