"""Does nano listen? Loss and beat F1 with the right context, another song's, and none.

    python pretraining/report_nano.py --model work/nano/model --tokens work/tokens --out nano.json

For each target and condition, over the same seeded windows of the test split:
- teacher-forced loss in nats (stage_lite.listening): whole window, its first second, and with the
  target's own past hidden;
- beat F1 and onset alignment (stage_lite.metrics.beats) of generated audio, with floor (another
  song's context), no context, ceiling (the real stem) and other songs' real stems (the mean over 20
  of them per window);
- beat F1 of the context itself, that is what the same beat tracker hears in it: an anchor, no
  bound;
- the share of the gap that is closed: (right - shuffled context) / (real - another song's stem).
  It may pass 1: a plain beat is easier to track than what a drummer plays.
Right, shuffled and no context of a window draw from the same random numbers. The real stem is the
corpus's audio if --corpus is given, else what the codec makes of its codes. Intervals are 95 %,
over songs. Whatever has been computed is kept in the --cache folder: run it again to go on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from markdown_table import table
from numpy import ndarray
from report_nano_plots import draw_onset_positions, draw_scores

from stage_lite.examples import Example
from stage_lite.files import write_atomic
from stage_lite.metrics.bootstrap import shown
from stage_lite.metrics.listening_gap import hear_conditions, listening_gap
from stage_lite.metrics.same_windows import other_songs, same_windows
from stage_lite.metrics.sounds import Clip
from stage_lite.metrics.studio import LOSSES, METRICS, Events, Studio
from stage_lite.metrics.systems import Sampling
from stage_lite.model import StageModel, load
from stage_lite.result_store import ResultStore, without_nan
from stage_lite.song import open_songs


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--tokens", type=Path, nargs="+", required=True, help="shards with the test split"
    )
    parser.add_argument("--corpus", type=Path, help="the songs as audio, for the real stem")
    parser.add_argument("--out", type=Path, required=True, help="JSON; pictures go beside it")
    parser.add_argument("--cache", type=Path, help="default: FILE.cache beside --out")
    parser.add_argument("--n", type=int, default=200, help="windows of each target")
    parser.add_argument("--seed", type=int, default=0, help="of windows and of generation")
    parser.add_argument("--targets", nargs="+", default=["drums", "bass"])
    parser.add_argument("--conditions", nargs="+", default=["click", "mix"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--window", type=float, default=8.0, help="seconds")
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--top-k", type=int, default=250)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


class Report:
    """The model at work on the windows of one target after the other."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model: StageModel = load(args.model)
        store = ResultStore(args.cache or args.out.with_suffix(".cache"))
        sampling = Sampling(args.cfg, args.temperature, args.top_k)
        self.studio = Studio(self.model, store, sampling, args.seed, args.batch_size)
        self.songs: dict = {}  # opened ones of the corpus

    def target(self, target: str) -> tuple[dict, dict]:
        """Everything about one target: (numbers, onset positions in the beat for the picture)."""
        args, studio = self.args, self.studio
        windows = same_windows(
            args.tokens, target, args.conditions, args.n,
            window_s=args.window, seed=args.seed, split=args.split,
        )  # fmt: skip
        real = None
        if args.corpus:
            real = [self._stem(e) for e in next(iter(windows.values()))]
        examples, losses, events = hear_conditions(studio, target, windows, real)
        result = listening_gap(examples, losses, events)
        events = {name: e for name, e in events.items() if not name.endswith("/context")}
        events["other"] = [events["real"][others[0]] for others in other_songs(examples)]
        return result, _positions(examples, events)

    def _stem(self, e: Example) -> Clip:
        """The stem as the corpus has it, as audio."""
        if e.song_id not in self.songs:
            self.songs[e.song_id] = open_songs(
                self.args.corpus / e.song_id, self.model.sample_rate
            )[0]
        wav = self.songs[e.song_id].stem(e.target_name, e.start_s, e.duration_s)
        return self.studio.sounds.of_audio(wav, self.model.sample_rate, f"stem of {e.song_id}")


def markdown(result: dict) -> str:
    """The tables of the model card."""
    blocks = []
    for target, one in result["targets"].items():
        blocks.append(
            f"**{target}**: n = {one['n']} windows of {result['window_s']:g} s from "
            f"{one['n_songs']} songs of split {result['split']!r}, seed {result['seed']}, guidance "
            f"{result['cfg']:g}, top-k {result['top_k']}; 95 % intervals over songs. "
            f"Real stem: {result['real_is']}."
        )
        lines = {"real stem": one["real"]}
        if "real_decoded" in one:
            lines["real stem through the codec"] = one["real_decoded"]
        for condition, own in one["conditions"].items():
            lines[f"generated, right {condition}"] = own["right"]
            lines[f"generated, another song's {condition}"] = own["shuffled"]
            if "context" in own:
                lines[f"the {condition} itself"] = own["context"]
        lines |= {"generated, no context": one["none"], "another song's real stem": one["other"]}
        digits = {name: 3 for name in LOSSES}
        rows = [
            [name, *(shown(line[m], digits.get(m, 2)) if m in line else ""
                     for m in (*METRICS, *LOSSES))]
            for name, line in lines.items()
        ]  # fmt: skip
        head = ["", "beat F1", "onset alignment", "loss", "loss, first second", "loss, past hidden"]
        blocks.append(table(head, rows))
        rows = [
            [condition, *(shown(own["gap_closed"][m]) for m in METRICS),
             *(shown(own["gap"][m], 3) for m in LOSSES)]
            for condition, own in one["conditions"].items()
        ]  # fmt: skip
        head = ["context", "gap closed, beat F1", "gap closed, onset alignment", "loss gap",
                "loss gap, first second", "loss gap, past hidden"]  # fmt: skip
        blocks.append(table(head, rows))
    return "\n\n".join(blocks)


def report(args: argparse.Namespace) -> dict:
    """Everything; writes the files, returns what is in the JSON."""
    torch.set_num_threads(args.threads)
    made = Report(args)
    result = {
        "what": "nano report",
        "model": made.model.config.name,
        "lm_hash": made.studio.lm_hash,
        "codec_hash": made.studio.sounds.codec_hash,
        "real_is": "audio of the corpus" if args.corpus else "decoded codes",
        "window_s": args.window,
        **{name: getattr(args, name) for name in ("split", "seed", "cfg", "top_k", "temperature")},
        "targets": {},
        "figures": [],
    }
    positions = {}
    for target in args.targets:
        result["targets"][target], positions[target] = made.target(target)
    for name, draw, data in (("scores", draw_scores, result["targets"]),
                             ("onsets", draw_onset_positions, positions)):  # fmt: skip
        picture = args.out.with_name(f"{args.out.stem}-{name}.png")
        result["figures"].append({"file": picture.name, "alt": draw(data, picture)})
    write_atomic(args.out, json.dumps(without_nan(result), indent=1) + "\n")
    print("\n" + markdown(result))
    return result


def _positions(examples: Sequence[Example], events: dict[str, Events]) -> dict[str, ndarray]:
    """Where in the beat all onsets are, in [0, 1)."""
    found = {}
    for name, windows in events.items():
        parts = [
            np.interp(x["onsets"], e.beat_times, np.arange(len(e.beat_times)), np.nan, np.nan) % 1
            for e, x in zip(examples, windows, strict=True)
        ]
        joined = np.concatenate(parts)
        found[name] = joined[~np.isnan(joined)]
    return found


if __name__ == "__main__":
    report(arguments())
