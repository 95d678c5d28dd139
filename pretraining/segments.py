"""Random segments of a corpus of rendered songs, as the codec meets them in training."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from stage_lite.metronome import click_track

STEMS = ("drums", "bass", "keys", "guitar", "other")
# What a segment is: one stem, the sum of a random subset of stems, or a click track.
KINDS = {
    "mix": 0.36,
    "drums": 0.17,
    "bass": 0.13,
    "keys": 0.12,
    "guitar": 0.12,
    "other": 0.04,
    "click": 0.06,
}


def read_songs(corpus: Path, splits: tuple[str, ...]) -> list[dict]:
    """song.json of every finished song of the splits, sorted by id, with its folder added."""
    songs = []
    for file in sorted(corpus.glob("*/song.json")):
        song = json.loads(file.read_text())
        if song["split"] in splits:
            songs.append(song | {"folder": file.parent})
    return songs


class Segments:
    """Batches of segments [B, 1, L]; batch `step` depends on (seed, step) and the songs alone."""

    def __init__(self, songs: list[dict], n_samples: int, batch_size: int, seed: int):
        self.songs, self.n_samples, self.batch_size, self.seed = songs, n_samples, batch_size, seed
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict = {}

    def batch(self, step: int) -> Tensor:
        """The batch of a step; the next one is read in the background meanwhile."""
        future = self._ahead.pop(step, None) or self._pool.submit(self._make, step)
        self._ahead = {step + 1: self._pool.submit(self._make, step + 1)}
        return future.result()

    def _make(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, step])
        return torch.from_numpy(np.stack([self._segment(rng) for _ in range(self.batch_size)]))[
            :, None
        ]

    def _segment(self, rng: np.random.Generator) -> np.ndarray:
        for _ in range(8):  # silence teaches little: draw again
            song = self.songs[rng.integers(len(self.songs))]
            start = int(rng.integers(max(1, int(song["duration_s"] * 32000) - self.n_samples)))
            wav = self._draw(song, start, rng)
            if np.abs(wav).max() > 1e-3:
                break
        gain = 10 ** (rng.uniform(-14, 3) / 20)
        return np.clip(wav * gain, -1, 1).astype(np.float32)

    def _draw(self, song: dict, start: int, rng: np.random.Generator) -> np.ndarray:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "click":
            start_s = start / 32000
            duration_s = self.n_samples / 32000
            beats, downs = (np.asarray(song[k]) - start_s for k in ("beats", "downbeats"))
            inside = [x[(x >= 0) & (x < duration_s)] for x in (beats, downs)]
            wav = click_track(*inside, duration_s=duration_s, sample_rate=32000)
            return np.asarray(wav)[0, : self.n_samples]
        stems = [kind]
        if kind == "mix":
            stems = [stem for stem in STEMS if rng.random() < 0.75] or list(STEMS)
        return sum(self._read(song, stem, start) for stem in stems)

    def _read(self, song: dict, stem: str, start: int) -> np.ndarray:
        wav = np.zeros(self.n_samples, np.float32)
        entry = song["stems"].get(stem)
        if entry and not entry.get("silent"):
            part, _ = soundfile.read(
                song["folder"] / entry["file"], self.n_samples, start, dtype="float32"
            )
            wav[: len(part)] = part
        return wav
