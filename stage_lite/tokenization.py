"""Songs -> token shards, by as many workers as there are, on one machine or on many.

    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(8) as pool:
        files = sl.tokenize_songs("songs", "runs/codec", "shards", pool)

Any executor of the standard library's kind will do, so a cluster needs no line of ours:

    from dask.distributed import Client
    files = sl.tokenize_songs("songs", "runs/codec", "shards", Client(address).get_executor())

Songs are taken in blocks, one shard file a block. A worker writes its block as a whole under a name
that depends on the songs only, so that a block that is made twice, because its first worker died
or was given up too early, is there once; and a block that is there is not made again, so that a
run that was stopped goes on. `songs`, `codec` and `out` must be on disks that all workers see.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .codec import load_codec
from .errors import StageLiteError
from .files import REGISTRY, read_registry, sha256_of, write_atomic, write_registry
from .shard_file import Shard, ShardWriter
from .shards import encode_song
from .song import Song, open_songs, split_of

if TYPE_CHECKING:
    from audiocraft.models.encodec import EncodecModel

SUFFIX = "-000.safetensors"  # of a shard writer's first file


@dataclass(frozen=True)
class Recipe:
    """What is made of each song; see `tokenize_songs`."""

    targets: tuple[str, ...] | None
    conditions: Mapping[str, int | Mapping[str, int]] | None
    seed: int
    duration_s: float | Mapping[str, float] | None

    def duration_of(self, song: Song) -> float | None:
        """Seconds of this song that are taken; None is all of it."""
        if isinstance(self.duration_s, Mapping):
            return self.duration_s.get(split_of(song))
        return self.duration_s


@dataclass(frozen=True)
class _Block:
    """One job: some songs that become one file."""

    songs: Sequence[Song]
    codec: EncodecModel | str | Path | Callable[[], EncodecModel]
    codec_name: str
    recipe: Recipe
    recipe_name: str
    out: Path
    name: str
    asked_by: int  # process

    @property
    def file(self) -> Path:
        return self.out / f"{self.name}{SUFFIX}"


def tokenize_songs(
    songs: str | Path | Sequence[Song],
    codec: EncodecModel | str | Path | Callable[[], EncodecModel],
    out: str | Path,
    executor: Executor | None = None,
    *,
    targets: Sequence[str] | None = None,
    conditions: Mapping[str, int | Mapping[str, int]] | None = None,
    seed: int = 0,
    duration_s: float | Mapping[str, float] | None = None,
    songs_per_block: int = 40,
    name_of: Callable[[int, Sequence[Song]], str] | None = None,
    codec_name: str | None = None,
    record: bool = True,
    progress: bool | Callable[[int, int], None] = True,
) -> list[Path]:
    """Write token shards of songs, for `ShardDataset(out)`.

    Args:
        songs: a folder in any layout of stem_layouts.py, or the songs.
        codec: the folder of `codec.safetensors`; or a codec in eval mode, which is sent along with
            every block; or a function of no arguments that makes one in the worker.
        out: folder of the shards, made if missing.
        executor: runs the blocks; None runs them here, one after the other.
        targets: stems to store, where a song has them; None stores all that are heard.
        conditions, seed: see shards.encode_song.
        duration_s: only the first seconds of each song, or of the songs of a split, as in
            {"train": 20.0}; None takes all.
        songs_per_block: more are fewer files, fewer are lost when a worker dies.
        name_of: (number of the block, its songs) -> beginning of the file's name; None numbers
            the blocks: `block-00000`. It must depend on these only.
        codec_name: free text for the shards; None is a hash of the codec's weights.
        record: write targets, conditions, seed and durations into the shards, so that a later call
            with others is refused; False as in shards of before.
        progress: a bar, nothing, or a function of (blocks done, blocks in all).

    Returns:
        The files, in the songs' order, old and new. `registry.txt` lists them.

    Raises:
        StageLiteError: no songs, a song twice, shards of another codec, recipe or division there, a
            song that cannot be read, or a worker that died. Blocks that are done are kept: the same
            call goes on from there.
    """
    out = Path(out)
    found = open_songs(songs) if isinstance(songs, str | Path) else list(songs)
    _check_songs(found, songs, songs_per_block)
    recipe = Recipe(None if targets is None else tuple(targets), conditions, seed, duration_s)
    codec_name = _name_of_codec(codec) if codec_name is None else codec_name
    recipe_name = _name_of_recipe(recipe) if record else ""
    out.mkdir(parents=True, exist_ok=True)
    blocks = []
    for number, start in enumerate(range(0, len(found), songs_per_block)):
        part = found[start : start + songs_per_block]
        name = f"block-{number:05d}" if name_of is None else name_of(number, part)
        blocks.append(_Block(part, codec, codec_name, recipe, recipe_name, out, name, os.getpid()))
    _check_folder(out, blocks)
    missing = [block for block in blocks if not _is_done(block)]
    show = _shown(progress, len(blocks))
    try:
        show(len(blocks) - len(missing))
        for done, block in enumerate(_made(missing, executor), len(blocks) - len(missing) + 1):
            _register(block.file)
            show(done)
    finally:
        show(None)
        _remove_leftovers(blocks)
        write_registry(out, "*.safetensors")
    return [block.file for block in blocks]


# --- the work ------------------------------------------------------------------------------------


def _make(block: _Block) -> None:
    """Write one block; in a worker, or here."""
    if os.getpid() != block.asked_by:  # as many workers as cores: one thread each
        torch.set_num_threads(1)
    codec, recipe = block.codec, block.recipe
    if isinstance(codec, str | Path):
        codec = load_codec(codec)[0]
    elif not isinstance(codec, torch.nn.Module):
        codec = codec()
    writer = ShardWriter(
        block.out,
        card=codec.cardinality,
        n_q=codec.num_codebooks,
        frame_rate=codec.frame_rate,
        prefix=block.name,
        songs_per_shard=len(block.songs) + 1,
        codec=block.codec_name,
        recipe=block.recipe_name,
    )
    for song in block.songs:
        targets = recipe.targets
        if targets is not None:
            targets = [name for name in targets if name in song.stem_names]
        with torch.inference_mode():
            encoded = encode_song(
                codec, song, targets, recipe.conditions, recipe.seed, recipe.duration_of(song)
            )
        writer.add(*encoded)
    writer.flush()


def _made(blocks: Sequence[_Block], executor: Executor | None) -> Iterator[_Block]:
    """The blocks, each when it is done."""
    if executor is None:
        for block in blocks:
            _make(block)
            yield block
        return
    jobs = {}
    try:
        for block in blocks:
            jobs[executor.submit(_make, block)] = block
        for job in as_completed(jobs):
            job.result()
            yield jobs[job]
    except BrokenExecutor as error:
        done = sum(_is_done(block) for block in blocks)
        raise StageLiteError(
            f"a worker process died ({error}); {done} of {len(blocks)} blocks are done and kept; "
            "run the same call with a new executor to go on, with fewer workers if memory was short"
        ) from None
    finally:
        for job in jobs:
            job.cancel()


# --- what is there -------------------------------------------------------------------------------


def _check_songs(found: Sequence[Song], asked: object, songs_per_block: int) -> None:
    if songs_per_block < 1:
        raise StageLiteError(f"songs_per_block is {songs_per_block}; expected at least 1")
    if not found:
        raise StageLiteError(f"no songs in {asked}; expected folders of stems, or a list of songs")
    ids = [song.id for song in found]
    if len(set(ids)) < len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise StageLiteError(f"song {twice!r} is there twice; expected every id once")


def _check_folder(out: Path, blocks: Sequence[_Block]) -> None:
    """No song may come to stand in two shards of the folder."""
    names = [block.file for block in blocks]
    if len(set(names)) < len(names):
        raise StageLiteError("name_of gives two blocks the same name; expected different ones")
    ids = {song.id for block in blocks for song in block.songs}
    for file in sorted(set(_shards(out)) - set(names)):
        again = sorted(ids & set(Shard(file).songs))
        if again:
            raise StageLiteError(
                f"{file} holds {len(again)} of the songs, first {again[0]!r}, from a call that "
                "divided them in another way; expected every song in one shard; give another "
                "folder, the songs and songs_per_block of that call, or delete the file"
            )


def _is_done(block: _Block) -> bool:
    """Is the block's shard there, whole and with these songs?"""
    if not block.file.is_file():
        return False
    try:
        shard = Shard(block.file)
    except StageLiteError:  # broken: made anew
        return False
    if shard.codec != block.codec_name:
        raise StageLiteError(
            f"{block.file} was made with the codec {shard.codec!r}, this one is "
            f"{block.codec_name!r}; give the same codec or another folder"
        )
    if block.recipe_name and shard.recipe and shard.recipe != block.recipe_name:
        raise StageLiteError(
            f"{block.file} was made as {shard.recipe}, this call asks for {block.recipe_name}; "
            "give the same or another folder"
        )
    return list(shard.songs) == [song.id for song in block.songs]


def _shards(out: Path) -> list[Path]:
    return [file for file in out.glob("*.safetensors") if not file.name.startswith(".")]


def _register(file: Path) -> None:
    """Put one file into registry.txt, so that what is done can be read while the rest is made."""
    folder = file.parent
    known = read_registry(folder) if (folder / REGISTRY).is_file() else {}
    known[file.name] = sha256_of(file)
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(known.items()))
    write_atomic(folder / REGISTRY, lines)


def _remove_leftovers(blocks: Sequence[_Block]) -> None:
    """Half-written files of workers that were killed."""
    for block in blocks:
        for part in block.out.glob(f".{block.file.stem}.*.part.safetensors"):
            part.unlink(missing_ok=True)


def _name_of_codec(codec: object) -> str:
    """16 hex digits that change with any weight."""
    if isinstance(codec, str | Path):
        load_codec(codec)  # says what is wrong here, not in every worker
        return sha256_of(Path(codec) / "codec.safetensors")[:16]
    module = codec if isinstance(codec, torch.nn.Module) else codec()
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _name_of_recipe(recipe: Recipe) -> str:
    values = {name: value for name, value in vars(recipe).items() if value is not None}
    return json.dumps(values, sort_keys=True)


def _shown(progress, total: int) -> Callable[[int | None], None]:
    if callable(progress):
        return lambda done: None if done is None else progress(done, total)
    if not progress:
        return lambda done: None
    from tqdm.auto import tqdm

    bar = tqdm(total=total, desc="tokenizing", unit="block")
    return lambda done: bar.close() if done is None else bar.update(done - bar.n)
