"""Render the songs that come with the project: data_samples/songs, index.json, registry.txt.

    python data_samples/make/ship_songs.py               # 15 s
    python data_samples/make/ship_songs.py --register    # after other files changed

All songs are of the test split: neither their grooves nor their charts are heard in training.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_samples.make.instruments import STEMS
from data_samples.make.make_songs import check_tools, write_song
from data_samples.make.plan import Plan, make_plan
from data_samples.make.songs import Rendered, UnusableSong, render_song
from data_samples.make.synth import Synth
from stage_lite.files import write_atomic, write_registry

FOLDER = Path(__file__).resolve().parents[1]
SEED = 7
LENGTH_S = (20.0, 30.0)
OGG_QUALITY = 0.45
# (style file, lowest and highest tempo in bpm): varied metres, tempi and instruments.
SONGS = [
    ("kara/kbossa", 110, 135),
    ("stdlib/fastswing", 150, 190),
    ("casio/rock2", 110, 140),
    ("yamaha/jazzwaltz", 110, 150),
    ("stdlib/ballad68", 60, 80),
    ("zoom/bald34", 80, 105),
    ("casio/latinhouse", 118, 130),
    ("yamaha/salsa1", 160, 190),
    ("zoom/trip", 76, 96),
    ("stdlib/westernswing", 120, 165),
    ("casio/8beatballad3", 60, 76),
    ("stdlib/bubblerock", 100, 130),
    ("zoom/blues", 84, 110),
    ("casio/pop", 96, 125),
    ("stdlib/beguine", 90, 115),
    ("stdlib/mellowjazz", 95, 135),
]


def _find(synth: Synth, index: int, style_file: str, low: float, high: float) -> Rendered:
    """The first attempt with the wanted tempo, steady, and keys and guitar both playing."""
    for attempt in range(2000):
        plan: Plan = make_plan(index, SEED, "test", LENGTH_S, style_file, attempt)
        if plan.drift or not low <= plan.bpm <= high:
            continue
        try:
            song = render_song(plan, synth)
        except UnusableSong:
            continue
        silent = {stem for stem in STEMS if song.labels["stems"][stem]["silent"]}
        if not silent & {"keys", "guitar"}:
            return song
    raise UnusableSong(f"{style_file}: nothing between {low} and {high} bpm in 2,000 attempts.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: data_samples itself")
    parser.add_argument("--register", action="store_true", help="only write registry.txt anew")
    args = parser.parse_args()
    if args.register:
        register(args.out)
        return
    check_tools()
    songs = args.out / "songs"
    shutil.rmtree(songs, ignore_errors=True)
    songs.mkdir(parents=True)
    synth = Synth(len(STEMS))
    index = []
    for number, (style_file, low, high) in enumerate(SONGS):
        song = _find(synth, number, style_file, low, high)
        labels = song.labels
        family = labels["family"].replace(" ", "-")
        labels["id"] = name = f"{number + 1:02d}-{family}"
        write_song(songs / name, song, "ogg", OGG_QUALITY)
        keep = ("id", "split", "family", "groove", "metre", "beats_per_bar", "bpm", "key",
                "duration_s")  # fmt: skip
        playing = [stem for stem in STEMS if not labels["stems"][stem]["silent"]]
        entry = {key: labels[key] for key in keep}
        index.append({**entry, "folder": f"songs/{name}", "playing": playing})
        print(name, labels["groove"], f"{labels['bpm']} bpm", f"{labels['duration_s']:.1f} s")
    text = ",\n  ".join(json.dumps(entry) for entry in index)
    write_atomic(args.out / "index.json", f'{{"songs": [\n  {text}\n]}}\n')
    register(args.out)


def register(folder: Path) -> None:
    """Write registry.txt over what is shipped: songs, index and token shards, not the maker."""
    write_registry(folder)
    registry = folder / "registry.txt"
    lines = registry.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "  make/" not in line and "README.md" not in line]
    write_atomic(registry, "".join(kept))


if __name__ == "__main__":
    main()
