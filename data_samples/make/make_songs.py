"""Make a corpus of songs as stems with exact beats, bars, chords and texts.

    python data_samples/make/make_songs.py --out corpus --hours 16 --seed 1 --workers 2 --format wav

Song number i is always the same for the same seed. A finished song is never made again; each is
written into a hidden folder first and renamed, so an interrupted run leaves nothing half written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import soundfile

from data_samples.make.instruments import STEMS
from data_samples.make.mma import have_mma
from data_samples.make.plan import Plan, make_plan
from data_samples.make.songs import Rendered, UnusableSong, render_song
from data_samples.make.synth import SAMPLE_RATE, Synth, have_fluidsynth

MEAN_SONG_S = 36.0
ATTEMPTS = 20


def write_stem(path: Path, wav: np.ndarray, ogg_quality: float = 0.4) -> None:
    """Write one mono stem; the suffix says the format (.wav int16, .flac int16, .ogg Vorbis).

    Args:
        path: target file.
        wav: float [L] in [-1, 1].
        ogg_quality: 0 (small) to 1 (large).
    """
    kind = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
    file_format, subtype = kind[path.suffix]
    level = {"compression_level": 1.0 - ogg_quality} if path.suffix == ".ogg" else {}
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, 1, subtype=subtype, format=file_format, **level
    ) as file:
        for start in range(0, len(wav), SAMPLE_RATE):  # long single writes of OGG can crash
            file.write(wav[start : start + SAMPLE_RATE])


def write_song(folder: Path, song: Rendered, suffix: str, ogg_quality: float = 0.4) -> None:
    """Write the five stems and song.json; the folder appears only when it is complete."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    labels = json.loads(json.dumps(song.labels))
    for stem, wav in zip(STEMS, song.stems, strict=True):
        path = hidden / f"{stem}.{suffix}"
        write_stem(path, wav, ogg_quality)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        labels["stems"][stem] = {"file": path.name, "sha256": digest, **labels["stems"][stem]}
    lines = ",\n ".join(f"{json.dumps(key)}: {json.dumps(labels[key])}" for key in labels)
    (hidden / "song.json").write_text(f"{{\n {lines}\n}}\n")
    hidden.rename(folder)


def make_song(synth: Synth, **wanted) -> tuple[Plan, Rendered]:
    """Plan and render a song; an unusable one is replaced by its next attempt.

    Args:
        synth: for five stems.
        wanted: arguments of `make_plan`.
    """
    for attempt in range(ATTEMPTS):
        plan = make_plan(attempt=attempt, **wanted)
        try:
            return plan, render_song(plan, synth)
        except UnusableSong as error:
            last = error
    raise UnusableSong(f"No usable song in {ATTEMPTS} attempts with {wanted}: {last}")


def check_tools() -> None:
    """Say in one sentence what is missing."""
    if not (have_mma() and have_fluidsynth()):
        sys.exit(
            "make_songs: needs the programs MMA and FluidSynth and the FluidR3 soundfont; "
            "try `apt install mma fluidsynth fluid-soundfont-gm`."
        )


def _work(task: tuple[int, int, int, Path, str]) -> int:
    worker, workers, n_songs, out, suffix = task
    synth = Synth(len(STEMS))
    made = 0
    for index in range(worker, n_songs, workers):
        plan = make_plan(index, SEED)
        folder = out / plan.id
        if not folder.exists():
            write_song(folder, make_song(synth, index=index, seed=SEED)[1], suffix)
            made += 1
        if worker == 0 and index // workers % 10 == 0:
            seconds = time.time() - STARTED
            done = max(made * workers, 1)
            print(f"song {index} of {n_songs}, {seconds / done:.2f} s each", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the song folders")
    parser.add_argument("--hours", type=float, default=16.0, help="length of the whole corpus")
    parser.add_argument("--seed", type=int, default=1, help="of all songs")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--format", choices=["wav", "flac", "ogg"], default="wav")
    args = parser.parse_args()
    check_tools()
    args.out.mkdir(parents=True, exist_ok=True)
    n_songs = int(np.ceil(args.hours * 3600 / MEAN_SONG_S))
    global SEED, STARTED
    SEED, STARTED = args.seed, time.time()
    tasks = [(i, args.workers, n_songs, args.out, args.format) for i in range(args.workers)]
    with get_context("fork").Pool(args.workers) as pool:
        made = sum(pool.imap_unordered(_work, tasks))
    print(f"{made} songs made, {n_songs} in {args.out}, {time.time() - STARTED:.0f} s")


if __name__ == "__main__":
    main()
