"""The words that the nano models know: those of the corpus's texts, all families, the stems."""

import json
from collections.abc import Iterable
from pathlib import Path

from stage_lite.shards import Shard
from stage_lite.text import build_vocabulary

ALWAYS = "drums bass keys guitar other mix"
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
