"""The file format of token shards: bit-packed codes and labels in one safetensors file.

Each stream of a song (a stem, a mix, the click) is one uint8 tensor `<song>/<stream>` of packed
codes; the labels of all songs stand as JSON in the file's header. A stream costs
K * ceil(log2(card)) * 50 bits per second: 225 bytes for K = 4, card = 512, 0.8 MB per hour.
Any window is read without the rest of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8, UInt16
from numpy import ndarray
from torch import Tensor

from .errors import StageLiteError
from .files import write_atomic, write_registry

HEADER = "stage_lite_shard"


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
        recipe: free text that says how the streams were made, kept in the header if it is given.
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
        recipe: str = "",
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.geometry = {"card": card, "n_q": n_q, "frame_rate": frame_rate, "codec": codec}
        if recipe:
            self.geometry["recipe"] = recipe
        self.songs_per_shard = songs_per_shard
        self.prefix = prefix
        self.files: list[Path] = []
        self._songs: list[dict] = []
        self._tensors: dict[str, Tensor] = {}

    def add(
        self,
        meta: Mapping,
        streams: Mapping[str, Int[Tensor, "K T"] | Int[ndarray, "K T"]],
        rms_db: Mapping[str, Sequence[float] | ndarray] | None = None,
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
        card, n_q, frame_rate, codec, recipe: of the codes.
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
        self.recipe = header.get("recipe", "")
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
