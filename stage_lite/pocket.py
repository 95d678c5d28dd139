"""Windows for a pocket model: your own condition on the songs that come as codes.

    train = pocket_windows(model, "my-idea", "drums", n=128)                 # training songs
    held_out = pocket_windows(model, "my-idea", "drums", n=16, split="test")  # songs never heard
    sl.finetune(model, train, steps=60)

The shards hold stems as codes, and beats, chords and words as they are. What a condition does not
ask for is not decoded, and what it makes is encoded once, not at every step.
The splits are those of the data: no groove and no chart of a test song is heard in training.

Notebook: 08_own_conditioning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .audio import level_db
from .conditions import ALIASES, SILENCE_DB, get_condition, list_conditions
from .errors import StageLiteError
from .examples import Example
from .shard_file import Shard
from .shards import ShardDataset
from .song import SAMPLES, Song, Window

if TYPE_CHECKING:
    from .model import StageModel

AT_ONCE = 16  # wavs that are encoded together
TRIES = 4  # windows that are looked at for one that is wanted


class ShardSong(Song):
    """A song of a token shard as conditions know songs: stems are decoded when they are asked for.

    Args:
        shard: the file that holds it.
        song_id: one of `shard.songs`.
        model: whose codec made the codes.

    Raises:
        StageLiteError: the codes are of another codec's size.
    """

    def __init__(self, shard: Shard, song_id: str, model: StageModel):
        if (shard.n_q, shard.card, shard.frame_rate) != (model.n_q, model.card, model.frame_rate):
            raise StageLiteError(
                f"{shard.file} holds {shard.n_q} x {shard.card} codes at {shard.frame_rate:g} "
                f"frames/s, {model.config.name!r} has {model.n_q} x {model.card} at "
                f"{model.frame_rate:g}; expected codes of the model's own codec"
            )
        labels = shard.songs[song_id]
        streams = {n: s for n, s in labels["streams"].items() if _is_stem(n)}
        levels = {n: s.get("rms_db") or [0.0] for n, s in streams.items()}  # unknown: it plays
        n_frames = min(s["n_frames"] for s in streams.values())
        self.shard, self.model, self.id = shard, model, song_id
        self.sample_rate, self.folder, self.split = model.sample_rate, None, labels.get("split")
        known = {"duration_s": n_frames / model.frame_rate, "beats": labels.get("beats", ())}
        self.labels, self.files = {**labels, **known}, None
        self.stem_names = [n for n in streams if max(levels[n]) > SILENCE_DB]
        self.chords = [(float(start), str(name)) for start, name in labels.get("chords") or ()]
        self.key, self.groove, self.family = (labels.get(n) for n in ("key", "groove", "family"))

    def stem(
        self, name: str, start_s: float = 0.0, duration_s: float | None = None
    ) -> Float[Tensor, "1 L"]:
        """As Song.stem, made of the codes."""
        if name not in self.stem_names:
            raise StageLiteError(
                f"song {self.id!r} has no stem {name!r} that is heard; it has {self.stem_names}"
            )
        if duration_s is None:
            duration_s = self.duration_s - start_s
        if start_s < 0 or duration_s < 0:
            raise StageLiteError(
                f"asked for {duration_s} s from {start_s} s of song {self.id!r}; expected both to "
                "be at least 0"
            )
        model, length = self.model, round(duration_s * self.sample_rate)
        first = int(start_s * model.frame_rate + 1e-6)
        last = int(np.ceil((start_s + duration_s) * model.frame_rate - 1e-6))
        codes = self.shard.codes(self.id, name, first, last)
        if codes.shape[1] == 0:
            return torch.zeros(1, length)
        wav = model.decode(codes[None])[0]
        offset = round(start_s * self.sample_rate) - first * self.sample_rate // round(
            model.frame_rate
        )
        wav = wav[:, offset : offset + length]
        return torch.nn.functional.pad(wav, (0, length - wav.shape[1]))


@torch.no_grad()
def pocket_windows(
    model: StageModel,
    condition: str,
    target: str = "drums",
    *,
    n: int,
    window_s: float = 2.56,
    split: str = "train",
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> list[Example]:
    """Windows of the shipped shards, with the condition in their context; all as codes.

    Args:
        model: gives the codec. The codes fit every model that shares it.
        condition: a registered name; it sees a `ShardSong`.
        target: stem to play.
        n: windows. Those for which the condition returns None or silence are passed over.
        window_s: length of target and context.
        split: "train", "valid" or "test".
        seed: of the choice of windows, and of the condition's own choices.
        folder: of token shards; None is `data_samples/tokens`.
        progress: a bar.

    Raises:
        StageLiteError: unknown condition, no shards, a context that is no mono wav of the window's
            length, or too few windows in which there is something to hear.
    """
    known = get_condition(condition)
    folder = SAMPLES / "tokens" if folder is None else folder
    data = ShardDataset(
        folder, target, window_s=window_s, conditions=["none"], split=split, seed=seed, n=TRIES * n
    )
    shards = {song_id: shard for shard in data.shards for song_id in shard.songs}
    found: list[Example] = []
    wavs: list[Tensor] = []
    for i in _shown(range(len(data)), n, found, progress):
        example = data[i]
        song = ShardSong(shards[example.song_id], example.song_id, model)
        window = Window(song, example.start_s, window_s, target, seed + i)
        wav = known(song, window)
        if wav is None or not level_db(wav) > SILENCE_DB:
            continue
        if wav.shape[1] != round(window_s * model.sample_rate):
            raise StageLiteError(
                f"condition {known.name!r} returned {wav.shape[1]} samples for a window of "
                f"{window_s} s; expected {round(window_s * model.sample_rate)} at "
                f"{model.sample_rate} Hz, so that context and target sound together"
            )
        found.append(example)
        wavs.append(wav)
        if len(found) == n:
            break
    if len(found) < n:
        raise StageLiteError(
            f"condition {known.name!r} had something to say in {len(found)} of {len(data)} windows "
            f"of {target!r}, {split!r}; expected {n}; ask for fewer, or another target"
        )
    codes = torch.cat([
        model.encode(torch.stack(wavs[at : at + AT_ONCE]), model.sample_rate)
        for at in range(0, n, AT_ONCE)
    ])  # fmt: skip
    return [
        dataclasses.replace(example, context_codes=row, condition=known.name)
        for example, row in zip(found, codes.clone(), strict=True)
    ]


def _is_stem(stream: str) -> bool:
    """Or what some condition made: `mix:drums#1`, `click`."""
    return ":" not in stream and stream.partition("#")[0] not in {*list_conditions(), *ALIASES}


def _shown(numbers: range, n: int, found: list, progress: bool) -> Iterator[int]:
    """The numbers, with a bar of how many of n are found."""
    if not progress:
        yield from numbers
        return
    from tqdm.auto import tqdm

    with tqdm(total=n, desc="making conditions", unit="window") as bar:
        for number in numbers:
            try:
                yield number
            finally:  # also when the last one is found, and the loop is left
                bar.update(len(found) - bar.n)
