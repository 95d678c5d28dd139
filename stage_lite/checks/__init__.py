"""Checks for the exercises of the notebooks: each says what is not right yet, and why it matters.

    checks.build_song(build_song)

A check has the name of its exercise, calls the reader's function on small inputs, and raises
`NotYet`, an AssertionError with a sentence, or prints that it has passed. Its asserts are plain, so
nbgrader and otter can take them. Tests run every check on the notebook's solution, its stub and
each wrong answer that the notebook lists. One file per notebook.
"""

from .base import NotYet, passed
from .context_token import lay_out, longer_table, mask_and_positions, target_loss
from .language_model import (
    are_codes,
    attend_step,
    embed_steps,
    guided,
    rows_of_batch,
    sampling_probs,
)
from .quickstart import build_song
from .tokenization import delay_by_hand, kbit_per_s, known_frames, residual_codes

__all__ = [
    "NotYet",
    "are_codes",
    "attend_step",
    "build_song",
    "delay_by_hand",
    "embed_steps",
    "guided",
    "kbit_per_s",
    "known_frames",
    "lay_out",
    "longer_table",
    "mask_and_positions",
    "passed",
    "residual_codes",
    "rows_of_batch",
    "sampling_probs",
    "target_loss",
]
