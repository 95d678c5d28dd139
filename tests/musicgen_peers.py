"""Small models of the other programs: see stage_lite/interop/peers.py."""

from pathlib import Path  # noqa: F401

from stage_lite.interop.peers import (  # noqa: F401
    CARD,
    DIM,
    HEADS,
    LAYERS,
    N_Q,
    RATIOS,
    TEXT_DIM,
    WORDS,
    OfficialStage,
    known_to_audiocraft,
    t5_folder,
    t5_tokenizer,
    transformers_musicgen,
)
from stage_lite.upstream import torchaudio

torchaudio()  # transformers imports it too, and cannot beside a CPU build of torch
