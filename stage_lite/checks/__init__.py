"""Checks for the exercises of the notebooks: each says what is not right yet, and why it matters.

    checks.build_song(build_song)

A check has the name of its exercise, calls the reader's function on small inputs, and raises
`NotYet`, an AssertionError with a sentence, or prints that it has passed. Its asserts are plain, so
nbgrader and otter can take them. Tests run every check on the notebook's solution, its stub and
each wrong answer that the notebook lists. One file per notebook.
"""

from .attention import cut_head, diagonal_share, head_weights
from .base import NotYet, passed
from .context_token import lay_out, longer_table, mask_and_positions, target_loss
from .evaluation import frechet, ranks_of_right, song_interval
from .fine_tuning import dropped_rows, snapshot, train_step
from .language_model import (
    are_codes,
    attend_step,
    embed_steps,
    guided,
    rows_of_batch,
    sampling_probs,
)
from .metronome import beats_of_curve, click_by_hand, f1_by_hand, octave_error
from .musicgen import cache_bytes, count_parameters, rename_layer
from .own_conditioning import leak, play_and_rest, step_positions
from .quickstart import build_song
from .tokenization import delay_by_hand, kbit_per_s, known_frames, residual_codes

__all__ = [
    "NotYet",
    "are_codes",
    "attend_step",
    "beats_of_curve",
    "build_song",
    "cache_bytes",
    "click_by_hand",
    "count_parameters",
    "cut_head",
    "delay_by_hand",
    "diagonal_share",
    "dropped_rows",
    "embed_steps",
    "f1_by_hand",
    "frechet",
    "guided",
    "head_weights",
    "kbit_per_s",
    "known_frames",
    "lay_out",
    "leak",
    "longer_table",
    "mask_and_positions",
    "octave_error",
    "passed",
    "play_and_rest",
    "ranks_of_right",
    "rename_layer",
    "residual_codes",
    "rows_of_batch",
    "sampling_probs",
    "snapshot",
    "song_interval",
    "step_positions",
    "target_loss",
    "train_step",
]
