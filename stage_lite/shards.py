"""Token shards: hours of music as codes, small enough to ship.

A shard is a safetensors file. Each stream of a song (a stem, a mix, the click) is one uint8 tensor
`<song>/<stream>` of bit-packed codes; the labels of all songs stand as JSON in the file's header.
A stream costs K * ceil(log2(card)) * 50 bits per second: 225 bytes for K = 4, card = 512, which is
0.8 MB per hour. Any window is read without the rest of the file. A folder of shards has a
`registry.txt` with the sha256 of each of them.

Streams: `drums`, `bass`, ... (stems), `mix:drums`, `mix:drums#1`, ... (random mixes of other stems
for the target drums), `click`. A condition named X is served by the streams `X:<target>` and `X`,
each also with `#<n>`; so a new condition needs a new stream and no change here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8, UInt16
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .examples import Example, beats_in
from .files import REGISTRY, verify_registry, write_atomic, write_registry

HEADER = "stage_lite_shard"
ALIASES = {"mixture": "mix", "metronome": "click"}  # names of conditions.py -> streams
SILENCE_DB = -50.0  # dBFS of one second


def bits_for(card: int) -> int:
    """Bits that hold a code below `card`: 9 for 512, 10 for 1024, 11 for 2048."""
    return max(1, int(card - 1).bit_length())


def pack(codes: UInt16[ndarray, "K T"], bits: int) -> UInt8[ndarray, "n"]:
    """Codes as one string of bits, frame after frame, the highest bit first.

    Eight frames always fill K * bits whole bytes, so that a window can be cut at multiples of 8.
    """
    if codes.size and int(codes.max()) >> bits:
        k, t = np.argwhere(codes >> bits)[0]
        raise StageLiteError(
            f"code {codes[k, t]} at codebook {k}, frame {t} does not fit into {bits} bits; "
            f"expected codes below {1 << bits}; special tokens are not stored"
        )
    frames_first = np.ascontiguousarray(codes.T)  # [T, K]
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    flags = ((frames_first.reshape(-1, 1) >> shifts) & 1).astype(np.uint8)  # [T * K, bits]
    return np.packbits(flags.reshape(-1))


def unpack(
    packed: UInt8[ndarray, "n"], bits: int, n_q: int, n_frames: int
) -> UInt16[ndarray, "K T"]:
    """The inverse of `pack`."""
    flags = np.unpackbits(packed, count=n_frames * n_q * bits).reshape(-1, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.float32)  # exact: bits <= 16
    codes = (flags.astype(np.float32) @ weights).astype(np.uint16)
    return np.ascontiguousarray(codes.reshape(n_frames, n_q).T)


class ShardWriter:
    """Write songs into shards of a folder; use it as a context manager.

        with ShardWriter("shards", card=512) as writer:
            writer.add(meta, streams, rms_db)

    Each file appears whole or not at all. Several processes may write into one folder under
    different prefixes; call `files.write_registry(folder)` once at the end.

    Args:
        folder: made if missing.
        card, n_q, frame_rate: of the codec that made the codes.
        songs_per_shard: a new file is begun after so many songs.
        prefix: file names are `<prefix>-000.safetensors` and so on.
        codec: free text or a hash that names the codec, kept in the header.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        card: int,
        n_q: int = 4,
        frame_rate: float = 50.0,
        songs_per_shard: int = 200,
        prefix: str = "shard",
        codec: str = "",
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.geometry = {"card": card, "n_q": n_q, "frame_rate": frame_rate, "codec": codec}
        self.songs_per_shard = songs_per_shard
        self.prefix = prefix
        self.files: list[Path] = []
        self._songs: list[dict] = []
        self._tensors: dict[str, Tensor] = {}

    def add(
        self,
        meta: Mapping,
        streams: Mapping[str, Int[Tensor, "K T"] | Int[ndarray, "K T"]],
        rms_db: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """One song.

        Args:
            meta: the content of song.json: at least "id"; "beats", "downbeats" in seconds, "split",
                "bpm", "groove", "family", "description" {stem: text} are used by ShardDataset,
                everything else is kept.
            streams: name -> codes, all of the same song from its beginning.
            rms_db: name -> level of each second in dBFS (see audio.rms_db): windows in which a
                stream is silent are not drawn. A stream without levels counts as never silent.
        """
        song_id = str(meta["id"])
        if any(song["id"] == song_id for song in self._songs):
            raise StageLiteError(f"song {song_id!r} was added twice; expected every id once")
        bits, n_q = bits_for(self.geometry["card"]), self.geometry["n_q"]
        described = {}
        for name, codes in streams.items():
            if codes.ndim != 2 or codes.shape[0] != n_q:
                raise StageLiteError(
                    f"stream {name!r} of song {song_id!r} has shape {tuple(codes.shape)}; "
                    f"expected [K, T] with K = {n_q}"
                )
            if codes.shape[1] and not 0 <= int(codes.min()) <= int(codes.max()) < self.card:
                raise StageLiteError(
                    f"stream {name!r} of song {song_id!r} has codes from {int(codes.min())} to "
                    f"{int(codes.max())}; expected 0 to {self.card - 1}"
                )
            packed = pack(np.asarray(codes).astype(np.uint16), bits)
            self._tensors[f"{song_id}/{name}"] = torch.from_numpy(packed)
            described[name] = {"n_frames": int(codes.shape[1])}
            if rms_db is not None and name in rms_db:
                levels = np.nan_to_num(np.asarray(rms_db[name], dtype=np.float64), neginf=-120.0)
                described[name]["rms_db"] = [int(level) for level in np.round(levels)]
        self._songs.append({**meta, "id": song_id, "streams": described})
        if len(self._songs) >= self.songs_per_shard:
            self.flush()

    @property
    def card(self) -> int:
        return self.geometry["card"]

    def flush(self) -> None:
        """Write the songs that were added since the last file."""
        from safetensors.torch import save

        if not self._songs:
            return
        header = {"version": 1, **self.geometry, "songs": self._songs}
        content = save(self._tensors, metadata={HEADER: json.dumps(header, separators=(",", ":"))})
        file = self.folder / f"{self.prefix}-{len(self.files):03d}.safetensors"
        write_atomic(file, content)
        self.files.append(file)
        self._songs, self._tensors = [], {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self.flush()
            write_registry(self.folder, "*.safetensors")


class Shard:
    """One shard file, opened for reading; only what is asked for is read.

    Attributes:
        songs: id -> metadata, with "streams": name -> {"n_frames", "rms_db"}.
        card, n_q, frame_rate, codec: of the codes.
    """

    def __init__(self, file: str | Path):
        from safetensors import SafetensorError, safe_open

        self.file = Path(file)
        if not self.file.is_file():
            raise StageLiteError(f"no shard {self.file}; expected a .safetensors file of codes")
        try:
            self._reader = safe_open(self.file, "numpy")
            header = json.loads((self._reader.metadata() or {})[HEADER])
        except SafetensorError as error:
            raise StageLiteError(
                f"{self.file} is broken or cut short ({error}); restore or download it again"
            ) from None
        except KeyError:
            raise StageLiteError(
                f"{self.file} holds no shard of codes; expected a file that "
                "stage_lite.shards.ShardWriter wrote"
            ) from None
        self.card, self.n_q = header["card"], header["n_q"]
        self.frame_rate, self.codec = header["frame_rate"], header.get("codec", "")
        self.songs: dict[str, dict] = {song["id"]: song for song in header["songs"]}

    def codes(
        self, song_id: str, stream: str, start: int = 0, stop: int | None = None
    ) -> Int[Tensor, "K T"]:
        """Frames start to stop of a stream, int64; cut at its end."""
        total = self.songs[song_id]["streams"][stream]["n_frames"]
        stop = total if stop is None else min(stop, total)
        if start >= stop:
            return torch.zeros(self.n_q, 0, dtype=torch.int64)
        bits = bits_for(self.card)
        aligned = start - start % 8
        bytes_before = aligned // 8 * self.n_q * bits
        bytes_until = -(-stop * self.n_q * bits // 8)
        packed = self._reader.get_slice(f"{song_id}/{stream}")[bytes_before:bytes_until]
        codes = unpack(packed, bits, self.n_q, stop - aligned)[:, start - aligned :]
        return torch.from_numpy(codes.astype(np.int64))

    def __reduce__(self):  # a worker process opens the file itself
        return Shard, (self.file,)


class ShardDataset:
    """Random windows of token shards; example i depends on (seed, i) only.

    Args:
        folder: of shards with registry.txt, or one shard file, or several of either.
        targets: stems to play, or stem -> weight. Songs or seconds without the stem are not drawn.
        window_s: length of the target.
        conditions: what stands in the context, name -> weight: "mix" (or "mixture"), "click" (or
            "metronome"), "self" (the target itself, for a copying curriculum), "none", or any
            stream in the shards. A plain list means equal weights.
        context_s: (shortest, longest): the context is the first x seconds of the window, x drawn
            evenly, as STAGE draws 5 to 10 s. None: the whole window.
        whole_context: with `context_s`, this share of the contexts is kept whole (STAGE: 0.05).
        seed: with i, makes the example.
        split: only songs of this split ("train", "valid", "test"); None takes all.
        n: length of the data set; None is one pass over the seconds of music in windows.
        min_active: share of the window's seconds in which the target must be heard.
        verify: compare each file with the folder's registry first.
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
        self.targets = _weights(targets, "targets")
        self.conditions = _weights(conditions, "conditions")
        self.window_s, self.context_s, self.whole_context = window_s, context_s, whole_context
        self.seed, self.split, self.min_active = seed, split, min_active
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
        names = _streams_for(song, condition, target)
        heard = [name for name in names if self._heard(song, name)[second]]
        stream = heard[rng.integers(len(heard))] if heard else None
        return self.window(song["id"], start, target, stream, condition, self._context_frames(rng))

    def window(
        self,
        song_id: str,
        start_frame: int,
        target: str,
        stream: str | None = None,
        condition: str = "",
        context_frames: int | None = None,
    ) -> Example:
        """One chosen window.

        Args:
            song_id: one of `song_ids`.
            start_frame: first frame of the window.
            target: stream to play.
            stream: stream of the context, or None for no context.
            condition: name to note in the example.
            context_frames: length of the context; None is the whole window.
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
            description=description_of(song, target),
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

    def _find_starts(self, target: str, condition: str) -> Int[ndarray, "n 2"]:
        rows = [np.zeros((0, 2), dtype=np.int64)]
        for index, (_, song) in enumerate(self._songs):
            if target not in song["streams"]:
                continue
            usable = self._heard(song, target)
            if condition != "none":
                names = _streams_for(song, condition, target)
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


def description_of(song: Mapping, stem: str) -> str:
    """Text label of a stem: song["description"][stem], or the stem and the family of its groove."""
    text = song.get("description", {})
    if isinstance(text, str):
        return text
    family = song.get("family")
    return text.get(stem) or (f"{stem}, {family}" if family else stem)


def _streams_for(song: Mapping, condition: str, target: str) -> list[str]:
    condition = ALIASES.get(condition, condition)
    if condition == "none":
        return []
    bases = {target} if condition == "self" else {condition, f"{condition}:{target}"}
    return [name for name in song["streams"] if name.partition("#")[0] in bases]


def _weights(choice: str | Sequence[str] | Mapping[str, float], what: str) -> dict[str, float]:
    if isinstance(choice, str):
        choice = [choice]
    weights = dict(choice) if isinstance(choice, Mapping) else {name: 1.0 for name in choice}
    weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
    if not weights or min(weights.values()) < 0:
        raise StageLiteError(
            f"{what} is {choice!r}; expected names, or name -> weight with positive weights"
        )
    return weights


def _shard_files(folder: str | Path | Sequence[str | Path], verify: bool) -> list[Path]:
    if not isinstance(folder, str | Path):
        return [file for part in folder for file in _shard_files(part, verify)]
    path = Path(folder)
    if path.is_file():
        if verify and (path.parent / REGISTRY).is_file():
            verify_registry(path.parent, [path.name])
        return [path]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise StageLiteError(
            f"no token shards in {path}; expected *.safetensors files of codes; "
            "`make data` makes them, stage_lite.shards.ShardWriter writes your own"
        )
    if verify:
        verify_registry(path, [file.name for file in files])
    return files
