"""Give a nano a trained encoder of the context, whose findings it can read from the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from train_context_encoder import WIDTH, WINDOW_S, lay_out

from stage_lite.context_encoder import N_PHASES, ContextEncoder
from stage_lite.errors import StageLiteError
from stage_lite.lm import embed
from stage_lite.lm_weights import weights_of
from stage_lite.model import StageModel
from stage_lite.shards import ShardDataset
from stage_lite.weights import load_weights

N_CLICKS = 192  # windows of clicks that are averaged


def attach_encoder(model: StageModel, file: Path, tokens: Sequence[Path]) -> None:
    """Put the encoder in front of the model, in place; only its way into the model will be trained.

    The model follows a click already. So each part of the beat begins as the mean embedding of the
    click's codes in that part: the model hears a faint click where the encoder hears the beat.

    Args:
        model: with a context token.
        file: what train_context_encoder.py wrote.
        tokens: folders of shards with clicks.
    """
    model.check_context_token()
    encoder = ContextEncoder(model.n_q, model.card, model.config.lm.dim, WIDTH)
    load_weights(encoder, file)
    with torch.no_grad():
        encoder.of_phase.weight.copy_(click_embeddings(model, tokens).T)
    for part in (encoder.table, encoder.blocks, encoder.phase, encoder.root):
        part.requires_grad_(False)
    model.lm.context_encoder = encoder
    lm = dataclasses.replace(model.config.lm, context_encoder=WIDTH)
    model.config = dataclasses.replace(model.config, lm=lm)


@torch.no_grad()
def click_embeddings(model: StageModel, tokens: Sequence[Path]) -> torch.Tensor:
    """Mean embedding of a click's steps in each part of the beat, Float[N_PHASES, dim], centred."""
    data = ShardDataset(tokens, "drums", window_s=WINDOW_S, conditions=["click"], seed=11,
                        split="train", n=N_CLICKS, verify=False)  # fmt: skip
    sequence, _, labels = lay_out(model, list(data), {})
    phase = labels[:, 0]
    w = weights_of(model.lm)
    embedded = embed(w, sequence, torch.zeros(1, 1, w.dim)).flatten(0, 1)  # [B * S, dim]
    parts = [embedded[phase.flatten() == part] for part in range(N_PHASES)]
    if not any(map(len, parts)):
        raise StageLiteError(f"no click in {list(map(str, tokens))} has beats and downbeats")
    known = torch.cat(parts).mean(0)
    return torch.stack([part.mean(0) if len(part) else known for part in parts]) - known
