"""The words that the nano models know: those of the corpus's texts, all families, the stems."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from stage_lite.model import StageModel
from stage_lite.shards import Shard
from stage_lite.text import WordConditioner, build_vocabulary, text_conditioner

ALWAYS = "drums bass keys guitar other mix click"
GROOVES = Path(__file__).parents[1] / "data_samples" / "make" / "grooves.json"


def words_of(shards: Iterable[Shard]) -> list[str]:
    """Vocabulary of all descriptions in some shards and of all families, in a fixed order."""
    texts = [ALWAYS]
    texts += sorted({g["family"] for g in json.loads(GROOVES.read_text())["grooves"]})
    for shard in shards:
        for song in shard.songs.values():
            for field in ("description", "description_long"):
                texts += (song.get(field) or {}).values()
    return build_vocabulary(texts)


def add_words(model: StageModel, words: Sequence[str], seed: int = 0) -> None:
    """Teach a trained model words that it lacks, in place; the old rows stay as they are."""
    old: WordConditioner = text_conditioner(model.lm)
    new = [word for word in words if word not in old.vocabulary]
    if not new:
        return
    vocabulary = (*old.vocabulary, *new)
    longer = WordConditioner(vocabulary, old.embed.embedding_dim, old.output_proj.out_features)
    longer.output_proj = old.output_proj
    longer.train(old.training)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        longer.embed.weight.normal_(std=float(old.embed.weight.std()), generator=generator)
        longer.embed.weight[: len(old.embed.weight)] = old.embed.weight
    model.lm.condition_provider.conditioners["description"] = longer
    lm = dataclasses.replace(model.config.lm, vocabulary=vocabulary)
    model.config = dataclasses.replace(model.config, lm=lm)
