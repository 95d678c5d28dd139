"""The words that the nano models know: those of the corpus's texts, and the stems' names."""

from collections.abc import Iterable

from stage_lite.shards import Shard
from stage_lite.text import build_vocabulary

ALWAYS = "drums bass keys guitar other mix"


def words_of(shards: Iterable[Shard]) -> list[str]:
    """Vocabulary of all descriptions in some shards, in a fixed order."""
    texts = [ALWAYS]
    for shard in shards:
        for song in shard.songs.values():
            for field in ("description", "description_long"):
                texts += (song.get(field) or {}).values()
    return build_vocabulary(texts)
