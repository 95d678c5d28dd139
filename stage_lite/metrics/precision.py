"""What rounded weights cost in quality: loss of real stems, beat F1 of generated ones.

    table = compare_weights(model, examples, store=ResultStore("precision"))

The same windows, seeds and sampling for each kind of weights, so that what bf16 and int8 cost is a
difference per window; its 95 % interval is over songs. The loss is that of the decoder which
generates, step by step with the stem's own codes, not of the training pass. Beside the beat F1
stand its ceiling (the real stem) and its floor (fp32, with another song's context).

Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..batch import make_batch
from ..decoder import Decoder
from ..errors import StageLiteError
from ..examples import Example, shuffle_contexts
from ..generate import generate_codes
from ..held_weights import check_weights, gave_up
from ..prefix import Prefix, prefix_loss
from ..result_store import ResultStore, fingerprint, key_of
from ..sizing import weight_bytes
from ..text import encode_text
from .beats import beat_f1
from .bootstrap import Bootstrap

if TYPE_CHECKING:
    from ..model import StageModel

KINDS = ("fp32", "bf16", "int8")
SHUFFLED, REAL = "fp32, another song's context", "real stem"


def compare_weights(
    model: StageModel,
    examples: Sequence[Example],
    kinds: Sequence[str] | None = None,
    *,
    store: ResultStore | None = None,
    seed: int = 0,
    batch_size: int = 8,
) -> Any:
    """Loss and beat F1 of the same windows under each kind of weights.

    Args:
        model: in eval mode; loaded as "fp32", which is what the others are compared with.
        examples: windows with beats, of at least two songs; audio is encoded, codes are taken.
        kinds: the first is what the others are compared with; None is fp32, bf16 and, on a CPU,
            int8.
        store: keeps each window's numbers, so that a run that stops can go on; None is a store in
            memory that prints nothing.
        seed: window i is generated with seed + i.
        batch_size: windows at once.

    Returns:
        A pandas table, one row per kind, then floor and ceiling of the beat F1: how many windows
        and songs, megabytes of the weights, loss in nats per code, beat F1, and what each lost to
        the first kind as `+0.0010 [-0.0002, +0.0021]`.

    Raises:
        StageLiteError: an unknown kind, a model of int8 only, no two songs, or more than half of
            the windows of one.
    """
    import pandas as pd

    examples = _encoded(model, examples)
    kinds = _kinds(model, kinds)
    listens = any(e.context_codes is not None for e in examples)
    shuffled = shuffle_contexts(examples) if listens else []  # what does not go is said first
    store = ResultStore(progress="none") if store is None else store
    weights, songs = fingerprint(model.lm), Bootstrap([e.song_id for e in examples])

    def fill(what: str, rows: Sequence[Example], compute) -> list[float]:
        keys = [key_of(weights, what, seed + i, *_content(e)) for i, e in enumerate(rows)]
        jobs = dict(zip(keys, enumerate(rows), strict=True))
        store.fill(what, jobs, compute, batch_size)
        return [float("nan") if store[key] is None else store[key] for key in keys]

    def losses(kind: str) -> list[float]:
        return fill(f"loss, {kind}", examples, lambda jobs: _losses(model, jobs, kind))

    def beats(kind: str, rows: Sequence[Example]) -> list[float]:
        return fill(f"beat F1, {kind}", rows, lambda jobs: _beats(model, jobs, kind, seed))

    lines: list[dict[str, object]] = []
    first: dict[str, list[float]] = {}
    for kind in kinds:
        line = _line(kind, songs, len(examples))
        line["MB"] = round(weight_bytes(model.lm, kind) / 1e6, 1)
        for name, values in (("loss", losses(kind)), ("beat F1", beats(kind, examples))):
            reference = first.setdefault(name, values)
            line[name] = songs.mean(values)["value"]
            change = [a - b for a, b in zip(values, reference, strict=True)]
            line[f"{name} - {kinds[0]}"] = signed(songs.mean(change))
        lines.append(line)
    if listens:
        values = beats(kinds[0], shuffled)
        name = SHUFFLED.replace("fp32", kinds[0])
        lines.append(_line(name, songs, len(examples)) | {"beat F1": songs.mean(values)["value"]})
    real = fill(REAL, examples, lambda jobs: [_score(model, e, e.target_codes) for _, e in jobs])
    lines.append(_line(REAL, songs, len(examples)) | {"beat F1": songs.mean(real)["value"]})
    return pd.DataFrame(lines).set_index("weights").round(4)


def signed(estimate: dict[str, float]) -> str:
    """Mean and interval with four digits and signs."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


# --- helpers -----------------------------------------------------------------------------------


def _kinds(model: StageModel, kinds: Sequence[str] | None) -> list[str]:
    if gave_up(model.lm):
        raise StageLiteError(
            "the model was loaded as 'int8' and holds nothing to compare with; expected one in "
            "fp32. Try: stage_lite.load(...) without dtype"
        )
    if kinds is None:
        kinds = KINDS if model.device.type == "cpu" else KINDS[:2]
    for kind in kinds:
        check_weights(model.lm, kind)
    return list(kinds)


def _encoded(model: StageModel, examples: Sequence[Example]) -> list[Example]:
    """The same examples with codes in place of audio, so that all kinds see the same ones."""
    done = []
    for e in examples:
        target, context = e.target_codes, e.context_codes
        if target is None and e.target is not None:
            target = model.encode(e.target, e.sample_rate)[0]
        if context is None and e.context is not None:
            context = model.encode(e.context, e.sample_rate)[0]
        done.append(replace(e, target=None, context=None, target_codes=target,
                            context_codes=context))  # fmt: skip
    if len({e.song_id for e in done}) < 2:
        raise StageLiteError(
            f"got {len(done)} windows of {len({e.song_id for e in done})} song; expected at least "
            "two songs, for windows of one song are one observation"
        )
    return done


def _content(example: Example) -> list[Any]:
    """What a number depends on, for its key."""
    context = "none" if example.context_codes is None else example.context_codes
    return [context, example.target_codes, example.description, example.beat_times.tolist()]


def _line(name: str, songs: Bootstrap, n: int) -> dict[str, object]:
    return {"weights": name, "windows": n, "songs": songs.n_songs}


@torch.inference_mode()
def _losses(model: StageModel, jobs: Sequence[tuple[int, Example]], kind: str) -> list[float]:
    """Nats per code of each target, written by the generation's own steps."""
    batch = make_batch(model, [e for _, e in jobs])
    prefix, sequence = batch.prefix, batch.prefix.sequence
    text, mask = encode_text(model.lm, batch.descriptions)
    words = [None] * len(jobs) if text is None else list(text * mask.unsqueeze(-1))
    decoder = Decoder(model.lm, prefix, words, kind)
    logits = [decoder.prefill(sequence[:, :, : prefix.target_start])]
    for at in range(prefix.target_start, sequence.shape[2]):
        logits.append(decoder.step(sequence[:, :, at]))
    stacked = torch.stack(logits, dim=2)  # [B, K, 1 + steps of the target, card]
    return [_row_loss(stacked, prefix, slice(b, b + 1)) for b in range(len(jobs))]


def _row_loss(logits: torch.Tensor, prefix: Prefix, row: slice) -> float:
    of_row = replace(
        prefix,
        sequence=prefix.sequence[row],
        attention_mask=prefix.attention_mask[row],
        positions=prefix.positions[row],
        loss_mask=prefix.loss_mask[row],
    )
    return float(prefix_loss(logits[row], of_row)[0])


def _beats(
    model: StageModel, jobs: Sequence[tuple[int, Example]], kind: str, seed: int
) -> list[float | None]:
    examples = [e for _, e in jobs]
    contexts = [e.context_codes for e in examples]
    out = generate_codes(
        model.lm,
        contexts if any(c is not None for c in contexts) else None,
        [e.description for e in examples],
        max(e.target_codes.shape[1] for e in examples),
        seed=[seed + i for i, _ in jobs],
        weights=kind,
        anchor_frames=model.config.anchor_frames,
    )
    return [_score(model, e, codes) for e, codes in zip(examples, out.codes, strict=True)]


def _score(model: StageModel, example: Example, codes: torch.Tensor) -> float | None:
    if not len(example.beat_times):
        return None
    wav = model.decode(codes[None, :, : example.target_codes.shape[1]])[0]
    return beat_f1(example.beat_times, wav.cpu(), model.sample_rate)
