"""Token shards: hours of music as codes, small enough to ship.

A folder of shards (shard_file.py) has a `registry.txt` with the sha256 of each of them.

Streams: `drums`, `bass`, ... (stems), `mix:drums`, `mix:drums#1`, ... (random mixes of other stems
for the target drums), `click`. A condition named X is served by the streams `X:<target>` and `X`,
each also with `#<n>`; so a new condition needs a new stream and no change here.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from .audio import rms_db
from .codec import encode
from .conditions import get_condition
from .errors import StageLiteError
from .examples import Example, beats_in, description_of, weights_of
from .files import REGISTRY, verify_registry
from .shard_file import Shard, ShardWriter
from .song import Song, Window, split_of

if TYPE_CHECKING:
    from audiocraft.models.encodec import EncodecModel

SHORT_NAMES = {"mixture": "mix", "metronome": "click"}  # conditions.py -> streams
SILENCE_DB = -50.0  # dBFS of one second

__all__ = ["Shard", "ShardDataset", "ShardWriter", "encode_song"]


def encode_song(
    codec: EncodecModel,
    song: Song,
    targets: Sequence[str] | None = None,
    conditions: Mapping[str, int | Mapping[str, int]] | None = None,
    seed: int = 0,
    duration_s: float | None = None,
) -> tuple[dict, dict[str, Int[Tensor, "K T"]], dict[str, ndarray]]:
    """A song of a stem folder as streams of codes: `writer.add(*encode_song(codec, song))`.

    Args:
        codec: in eval mode.
        song: at the codec's sample rate.
        targets: stems to store as targets, with their contexts; None takes all that are heard.
        conditions: name -> how many different ones, for each target or, as target -> count, for
            some; None is {"mixture": 2, "metronome": 1}. A mixture keeps its stems and random
            seed for the whole song.
        seed: of the conditions' choices.
        duration_s: only the first seconds of the song; None takes all of it.

    Returns:
        The song's labels, codes of each stream, levels of each stream in dBFS per second.
    """
    if song.sample_rate != codec.sample_rate:
        raise StageLiteError(
            f"song {song.id!r} is opened at {song.sample_rate} Hz, the codec takes "
            f"{codec.sample_rate} Hz; open the songs with sample_rate={codec.sample_rate}"
        )
    targets = song.stem_names if targets is None else list(targets)
    conditions = {"mixture": 2, "metronome": 1} if conditions is None else conditions
    length_s = song.duration_s if duration_s is None else min(duration_s, song.duration_s)
    wavs = {name: song.stem(name, 0.0, length_s) for name in targets}
    for name, count in conditions.items():
        known = get_condition(name)
        stream = SHORT_NAMES.get(known.name, known.name)
        for target in targets if known.needs_target else targets[:1]:
            for number in range(count if isinstance(count, int) else count.get(target, 0)):
                own_seed = zlib.crc32(f"{seed}/{song.id}/{name}/{target}/{number}".encode())
                window = Window(song, 0.0, length_s, target, own_seed)
                wav = known(song, window)
                if wav is not None:
                    base = f"{stream}:{target}" if known.needs_target else stream
                    wavs[f"{base}#{number}" if number else base] = wav
    codes = {name: encode(codec, wav[None])[0] for name, wav in wavs.items()}
    levels = {name: rms_db(wav, song.sample_rate) for name, wav in wavs.items()}
    labels = {key: value for key, value in song.labels.items() if key != "stems"}
    labels |= {
        "id": song.id,
        "split": split_of(song),
        "beats": [round(float(t), 5) for t in song.beats],
        "downbeats": [round(float(t), 5) for t in song.downbeats],
        "bpm": song.bpm,
    }
    return labels, codes, levels


class ShardDataset(Sequence):
    """Random windows of token shards; example i depends on (seed, i) only.

    Args:
        folder: of shards with registry.txt, or one shard file, or several of either.
        targets: stems to play, or stem -> weight. Songs or seconds without the stem are not drawn.
        window_s: length of the target.
        conditions: what stands in the context, name -> weight: "mix" (or "mixture"), "click" (or
            "metronome"), "self" (the target itself, for a copying curriculum), "stem" (one other
            of the targets, alone), "none", or any stream in the shards. A plain list means equal
            weights.
        context_s: (shortest, longest): the context is the first x seconds of the window, x drawn
            evenly, as STAGE draws 5 to 10 s. None: the whole window.
        whole_context: with `context_s`, this share of the contexts is kept whole (STAGE: 0.05).
        seed: with i, makes the example.
        split: only songs of this split ("train", "valid", "test"); None takes all.
        n: length of the data set; None is one pass over the seconds of music in windows.
        min_active: share of the window's seconds in which the target must be heard.
        text: label that becomes the description ("description", "description_long"); of several,
            one is drawn.
        verify: compare each file with registry.txt of its folder, or of the folder above.
    """

    def __init__(
        self,
        folder: str | Path | Sequence[str | Path],
        targets: str | Sequence[str] | Mapping[str, float] = ("drums", "bass", "keys", "guitar"),
        *,
        window_s: float = 8.0,
        conditions: str | Sequence[str] | Mapping[str, float] = ("mix", "click"),
        context_s: tuple[float, float] | None = None,
        whole_context: float = 0.05,
        seed: int = 0,
        split: str | None = None,
        n: int | None = None,
        min_active: float = 0.5,
        text: str | Sequence[str] = "description",
        verify: bool = True,
    ):
        self.shards = [Shard(file) for file in _shard_files(folder, verify)]
        first = self.shards[0]
        for shard in self.shards[1:]:
            if (shard.card, shard.n_q, shard.frame_rate, shard.codec) != (
                first.card, first.n_q, first.frame_rate, first.codec
            ):  # fmt: skip
                raise StageLiteError(
                    f"{shard.file} and {first.file} were made with different codecs; "
                    "expected one codec per data set"
                )
        self.card, self.n_q, self.frame_rate = first.card, first.n_q, first.frame_rate
        self.targets = weights_of(targets, "targets")
        self.conditions = weights_of(conditions, "conditions")
        self.window_s, self.context_s, self.whole_context = window_s, context_s, whole_context
        self.seed, self.split, self.min_active = seed, split, min_active
        self.text = [text] if isinstance(text, str) else list(text)
        self.window_frames = round(window_s * self.frame_rate)
        if self.window_frames < 1:
            raise StageLiteError(f"window_s is {window_s}; expected at least 1 frame (0.02 s)")
        if context_s is not None and not 0 < context_s[0] <= context_s[1] <= window_s:
            raise StageLiteError(
                f"context_s is {context_s}; expected 0 < shortest <= longest <= window_s = "
                f"{window_s}"
            )
        self._songs = [
            (shard, song)
            for shard in self.shards
            for song in shard.songs.values()
            if split is None or song.get("split") == split
        ]
        self._place = {song["id"]: i for i, (_, song) in enumerate(self._songs)}
        if len(self._place) != len(self._songs):
            raise StageLiteError(
                f"{len(self._songs)} songs share {len(self._place)} ids; expected every id once; "
                "was a shard given twice?"
            )
        # (target, condition) -> rows (song, start second) that can be drawn
        self._starts = {
            (target, condition): self._find_starts(target, condition)
            for target in self.targets
            for condition in self.conditions
        }
        self._pairs = [pair for pair, rows in self._starts.items() if len(rows)]
        for target in self.targets:
            if not len(self._find_starts(target, "none")):
                raise StageLiteError(self._nothing_for("target", target))
        for condition in self.conditions:
            if not any(pair[1] == condition for pair in self._pairs):
                raise StageLiteError(self._nothing_for("condition", condition))
        for target in self.targets:
            if not any(pair[0] == target for pair in self._pairs):
                raise StageLiteError(
                    self._nothing_for(f"conditions {list(self.conditions)} and target", target)
                )
        weights = [self.targets[t] * self.conditions[c] for t, c in self._pairs]
        self._pair_p = np.cumsum(weights) / np.sum(weights)
        seconds = sum(self._n_frames(song) for _, song in self._songs) / self.frame_rate
        self.n = n if n is not None else max(1, int(seconds * len(self.targets) / window_s))

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    @property
    def song_ids(self) -> list[str]:
        """Songs of the split, in file order."""
        return [song["id"] for _, song in self._songs]

    @property
    def hours(self) -> float:
        """Hours of music (not of stems)."""
        return sum(self._n_frames(song) for _, song in self._songs) / self.frame_rate / 3600

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < self.n:
            raise IndexError(i)
        rng = np.random.default_rng([self.seed, i])
        target, condition = self._pairs[int(np.searchsorted(self._pair_p, rng.random(), "right"))]
        rows = self._starts[target, condition]
        index, second = rows[rng.integers(len(rows))]
        song = self._songs[index][1]
        last = self._n_frames(song) - self.window_frames
        start = min(last, round(second * self.frame_rate) + int(rng.integers(self.frame_rate)))
        names = self._streams_for(song, condition, target)
        heard = [name for name in names if self._heard(song, name)[second]]
        stream = heard[rng.integers(len(heard))] if heard else None
        frames = self._context_frames(rng)
        text = self.text[int(rng.random() * len(self.text))]
        return self.window(song["id"], start, target, stream, condition, frames, text)

    def window(
        self,
        song_id: str,
        start_frame: int,
        target: str,
        stream: str | None = None,
        condition: str = "",
        context_frames: int | None = None,
        text: str = "description",
    ) -> Example:
        """One chosen window.

        Args:
            song_id: one of `song_ids`.
            start_frame: first frame of the window.
            target: stream to play.
            stream: stream of the context, or None for no context.
            condition: name to note in the example.
            context_frames: length of the context; None is the whole window.
            text: which label describes the target.
        """
        shard, song = self._songs[self._place[song_id]]
        stop = start_frame + self.window_frames
        context = None
        if stream is not None:
            length = self.window_frames if context_frames is None else context_frames
            context = shard.codes(song_id, stream, start_frame, start_frame + length)
        start_s = start_frame / self.frame_rate
        return Example(
            target=None,
            context=None,
            description=description_of(song, target, text),
            beat_times=beats_in(song.get("beats", ()), start_s, self.window_s),
            downbeat_times=beats_in(song.get("downbeats", ()), start_s, self.window_s),
            song_id=song_id,
            start_s=start_s,
            duration_s=self.window_s,
            condition=condition or (stream or "none"),
            target_name=target,
            context_codes=context,
            target_codes=shard.codes(song_id, target, start_frame, stop),
            bpm=song.get("bpm"),
            groove=song.get("groove"),
            family=song.get("family"),
        )

    def _context_frames(self, rng: np.random.Generator) -> int | None:
        whole, x = rng.random(), rng.random()  # always two draws: the example stays comparable
        if self.context_s is None or whole < self.whole_context:
            return None
        shortest, longest = self.context_s
        return max(1, round((shortest + x * (longest - shortest)) * self.frame_rate))

    def _n_frames(self, song: dict) -> int:
        return min((s["n_frames"] for s in song["streams"].values()), default=0)

    def _heard(self, song: dict, stream: str) -> Bool[ndarray, "n"]:
        """For each second at which a window can begin: is the stream loud enough in the window?"""
        room = self._n_frames(song) - self.window_frames
        n_starts = int(room / self.frame_rate) + 1 if room >= 0 else 0
        levels = song["streams"][stream].get("rms_db")
        if levels is None or n_starts == 0:
            return np.ones(n_starts, dtype=bool)
        width = max(1, round(self.window_s))
        loud = np.zeros(max(len(levels), n_starts + width))
        loud[: len(levels)] = np.asarray(levels) > SILENCE_DB
        seconds = np.concatenate([[0.0], np.cumsum(loud)])
        active = (seconds[width:] - seconds[:-width])[:n_starts]
        return active >= self.min_active * width

    def _streams_for(self, song: Mapping, condition: str, target: str) -> list[str]:
        condition = SHORT_NAMES.get(condition, condition)
        bases = {
            "none": set(),
            "self": {target},
            "stem": set(self.targets) - {target},
        }.get(condition, {condition, f"{condition}:{target}"})
        return [name for name in song["streams"] if name.partition("#")[0] in bases]

    def _find_starts(self, target: str, condition: str) -> Int[ndarray, "n 2"]:
        rows = [np.zeros((0, 2), dtype=np.int64)]
        for index, (_, song) in enumerate(self._songs):
            if target not in song["streams"]:
                continue
            usable = self._heard(song, target)
            if condition != "none":
                names = self._streams_for(song, condition, target)
                heard = [self._heard(song, name) for name in names]
                usable = usable & np.any([*heard, np.zeros_like(usable)], axis=0)
            seconds = np.flatnonzero(usable)
            rows.append(np.stack([np.full_like(seconds, index), seconds], axis=1))
        return np.concatenate(rows)

    def _nothing_for(self, kind: str, name: str) -> str:
        streams = sorted({stream for _, song in self._songs for stream in song["streams"]})
        splits = sorted(
            {str(s.get("split")) for shard in self.shards for s in shard.songs.values()}
        )
        return (
            f"no window of {self.window_s} s for {kind} {name!r} in {len(self._songs)} songs of "
            f"split {self.split!r}; the shards hold the streams {streams} and splits {splits}; "
            "take another name, a shorter window or another split"
        )


def _shard_files(folder: str | Path | Sequence[str | Path], verify: bool) -> list[Path]:
    if not isinstance(folder, str | Path):
        return [file for part in folder for file in _shard_files(part, verify)]
    path = Path(folder)
    whole = (f for f in path.glob("*.safetensors") if not f.name.startswith("."))  # no half ones
    files = [path] if path.is_file() else sorted(whole)
    if not files:
        raise StageLiteError(
            f"no token shards in {path}; expected *.safetensors files of codes; "
            "`make data` makes them, stage_lite.shards.ShardWriter writes your own"
        )
    if verify:
        parent = files[0].parent
        root = parent if (parent / REGISTRY).is_file() else parent.parent
        if (root / REGISTRY).is_file() or not path.is_file():
            verify_registry(root, [file.relative_to(root).as_posix() for file in files])
    return files
