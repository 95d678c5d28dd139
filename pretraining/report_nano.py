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
import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from listening_windows import draw_windows, other_songs
from markdown_table import table
from numpy import ndarray
from report_nano_plots import draw_onset_positions, draw_scores

from stage_lite.batch import hide_history, make_batch
from stage_lite.examples import Example, shuffle_contexts
from stage_lite.files import write_atomic
from stage_lite.generate import generate_codes
from stage_lite.listening import code_losses
from stage_lite.metrics.beats import (
    beat_f1_of_times,
    find_beats,
    find_onsets,
    onset_alignment_of_times,
)
from stage_lite.metrics.bootstrap import Bootstrap, shown
from stage_lite.metrics.systems import window_seed
from stage_lite.model import StageModel, load
from stage_lite.result_store import ResultStore, fingerprint, key_of, without_nan
from stage_lite.song import open_songs

METRICS = ("beat_f1", "onset_alignment")
LOSSES = ("loss", "loss_first_s", "loss_hidden")


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
    parser.add_argument("--workers", type=int, default=2, help="processes that track beats; or 0")
    return parser.parse_args(argv)


class Report:
    """The model, the windows and the store, with what is computed for them."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model: StageModel = load(args.model)
        self.store = ResultStore(args.cache or args.out.with_suffix(".cache"))
        self.lm_hash = key_of(fingerprint(self.model.lm), self.model.config.anchor_frames)
        self.codec_hash = fingerprint(self.model.codec)
        self.songs: dict = {}  # opened ones of the corpus

    def target(self, target: str, map_: Callable) -> tuple[dict, dict]:
        """Everything about one target: (numbers, onset positions in the beat for the picture)."""
        args = self.args
        windows = draw_windows(
            args.tokens, target, args.conditions, args.n,
            window_s=args.window, seed=args.seed, split=args.split,
        )  # fmt: skip
        rows = {"none": [_without_context(e) for e in next(iter(windows.values()))]}
        for condition, examples in windows.items():
            rows[f"{condition}/right"] = examples
            rows[f"{condition}/shuffled"] = shuffle_contexts(examples)
        losses = {name: self._losses(f"{target}, {name}", r) for name, r in rows.items()}
        codes = {name: self._generate(f"{target}, {name}", r) for name, r in rows.items()}
        decoded = "real_decoded" if args.corpus else "real"
        codes = {decoded: [e.target_codes for e in rows["none"]]} | codes
        codes |= {f"{c}/context": [e.context_codes for e in one] for c, one in windows.items()}
        events = {
            name: self._events(f"{target}, {name}", [(self.codec_hash, c) for c in made], map_)
            for name, made in codes.items()
        }
        if args.corpus:
            audio = [("audio", self._stem(e)) for e in rows["none"]]
            events = {"real": self._events(f"{target}, real", audio, map_)} | events
        examples = rows["none"]
        result = summarise(examples, losses, events)
        events = {name: e for name, e in events.items() if not name.endswith("/context")}
        events["other"] = [events["real"][others[0]] for others in other_songs(examples)]
        return result, _positions(examples, events)

    # --- losses ----------------------------------------------------------------------------------

    def _losses(self, what: str, examples: Sequence[Example]) -> dict[str, ndarray]:
        keys = [key_of("loss", self.lm_hash, *_inputs(e), e.target_codes) for e in examples]
        jobs = dict(zip(keys, examples, strict=True))
        self.store.fill(f"losses, {what}", jobs, self._compute_losses, self.args.batch_size)
        values = [self.store[key] for key in keys]
        return {name: np.array([v[name] for v in values]) for name in LOSSES}

    @torch.inference_mode()
    def _compute_losses(self, examples: Sequence[Example]) -> list[dict[str, float]]:
        batch = make_batch(self.model, examples)
        seen = code_losses(self.model, batch)  # [B, T, K]
        everything = torch.ones_like(batch.prefix.attention_mask)
        blind = code_losses(
            self.model, hide_history(batch, everything, self.model.special_token_id)
        )
        first = seen[:, : round(self.model.frame_rate)]
        columns = [x.nanmean(dim=(1, 2)).tolist() for x in (seen, first, blind)]
        return [dict(zip(LOSSES, values, strict=True)) for values in zip(*columns, strict=True)]

    # --- generation ------------------------------------------------------------------------------

    def _generate(self, what: str, examples: Sequence[Example]) -> list[torch.Tensor]:
        settings = [self.args.cfg, self.args.top_k, self.args.temperature]
        keys = [
            key_of("codes", self.lm_hash, settings, *_inputs(e), self._seed(e), e.duration_s)
            for e in examples
        ]
        jobs = dict(zip(keys, examples, strict=True))
        self.store.fill(f"generated, {what}", jobs, self._compute_codes, self.args.batch_size)
        return [torch.tensor(self.store[key]) for key in keys]

    def _compute_codes(self, examples: Sequence[Example]) -> list[list[list[int]]]:
        made = generate_codes(
            self.model.lm,
            [e.context_codes for e in examples],
            [e.description for e in examples],
            round(self.args.window * self.model.frame_rate),
            cfg_coef=self.args.cfg,
            top_k=self.args.top_k,
            temperature=self.args.temperature,
            seed=[self._seed(e) for e in examples],
            anchor_frames=self.model.config.anchor_frames,
        )
        return made.codes.tolist()

    def _seed(self, e: Example) -> int:
        return window_seed(self.args.seed, e)

    # --- beats and onsets ------------------------------------------------------------------------

    def _events(self, what: str, sources: list, map_: Callable) -> list[dict[str, ndarray]]:
        keys = [key_of("events", *source) for source in sources]
        jobs = dict(zip(keys, sources, strict=True))

        def compute(batch: Sequence) -> list[dict[str, list[float]]]:
            return list(
                map_(_find_events, [(self._audio(s), self.model.sample_rate) for s in batch])
            )

        self.store.fill(f"beats, {what}", jobs, compute, 2 * self.args.batch_size)
        return [{name: np.array(times) for name, times in self.store[key].items()} for key in keys]

    def _audio(self, source: tuple[str, torch.Tensor]) -> ndarray:
        kind, content = source
        if kind == "audio":
            return content.numpy()
        return self.model.decode(content[None])[0].numpy()

    def _stem(self, e: Example) -> torch.Tensor:
        if e.song_id not in self.songs:
            self.songs[e.song_id] = open_songs(
                self.args.corpus / e.song_id, self.model.sample_rate
            )[0]
        return self.songs[e.song_id].stem(e.target_name, e.start_s, e.duration_s)


def summarise(
    examples: Sequence[Example],
    losses: dict[str, dict[str, ndarray]],
    events: dict[str, list[dict[str, ndarray]]],
) -> dict:
    """Scores of each window against its own beats, their means, gaps and intervals.

    Args:
        examples: the windows.
        losses: "none", "<condition>/right", "<condition>/shuffled" -> name -> one per window.
        events: the same names, "real" and, if that is another, "real_decoded" -> beats and onsets
            of each window.
    """
    spread = Bootstrap([e.song_id for e in examples])
    scores = {name: _scores(examples, found) for name, found in events.items()}
    scores["other"] = _scores_of_others(examples, events["real"])
    result: dict = {"n": len(examples), "n_songs": spread.n_songs, "conditions": {}}
    for name in ("real", "real_decoded", "other", "none"):
        if name in scores:
            result[name] = {m: spread.mean(scores[name][m]) for m in METRICS}
    result["none"] |= {m: spread.mean(losses["none"][m]) for m in LOSSES}
    for condition in sorted({name.partition("/")[0] for name in losses} - {"none"}):
        right, shuffled = f"{condition}/right", f"{condition}/shuffled"
        own: dict = {"right": {}, "shuffled": {}, "gap": {}, "gap_closed": {}}
        if f"{condition}/context" in scores:
            own["context"] = {m: spread.mean(scores[f"{condition}/context"][m]) for m in METRICS}
        for source, names in ((scores, METRICS), (losses, LOSSES)):
            for m in names:
                a, b = source[right][m], source[shuffled][m]
                own["right"][m], own["shuffled"][m] = spread.mean(a), spread.mean(b)
                # Losses fall with a better context, scores rise: a gap above 0 is always good.
                own["gap"][m] = spread.mean(b - a if m in LOSSES else a - b)
        for m in METRICS:
            columns = [scores[name][m] for name in (right, shuffled, "real", "other")]
            own["gap_closed"][m] = spread.of(lambda a, b, c, d: (a - b) / (c - d), *columns)
        result["conditions"][condition] = own
    return result


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
        "lm_hash": made.lm_hash,
        "codec_hash": made.codec_hash,
        "real_is": "audio of the corpus" if args.corpus else "decoded codes",
        "window_s": args.window,
        **{name: getattr(args, name) for name in ("split", "seed", "cfg", "top_k", "temperature")},
        "targets": {},
        "figures": [],
    }
    positions = {}
    with _mapper(args.workers) as map_:
        for target in args.targets:
            result["targets"][target], positions[target] = made.target(target, map_)
    for name, draw, data in (("scores", draw_scores, result["targets"]),
                             ("onsets", draw_onset_positions, positions)):  # fmt: skip
        picture = args.out.with_name(f"{args.out.stem}-{name}.png")
        result["figures"].append({"file": picture.name, "alt": draw(data, picture)})
    write_atomic(args.out, json.dumps(without_nan(result), indent=1) + "\n")
    print("\n" + markdown(result))
    return result


def _without_context(e: Example) -> Example:
    return dataclasses.replace(e, context=None, context_codes=None, condition="none")


def _inputs(e: Example) -> tuple:
    return e.description, "no context" if e.context_codes is None else e.context_codes


def _find_events(audio: tuple[ndarray, int]) -> dict[str, list[float]]:
    wav, sample_rate = torch.from_numpy(audio[0]), audio[1]
    onsets = find_onsets(wav, sample_rate)
    beats = find_beats(wav, sample_rate) if len(onsets) else onsets  # silence has neither
    return {"beats": beats.tolist(), "onsets": onsets.tolist()}


def _scores(examples: Sequence[Example], events: list[dict]) -> dict[str, ndarray]:
    pairs = list(zip(examples, events, strict=True))
    return {
        "beat_f1": np.array([beat_f1_of_times(e.beat_times, x["beats"]) for e, x in pairs]),
        "onset_alignment": np.array([
            onset_alignment_of_times(e.beat_times, x["onsets"], e.duration_s) for e, x in pairs
        ]),
    }  # fmt: skip


def _scores_of_others(examples: Sequence[Example], real: list[dict]) -> dict[str, ndarray]:
    """Of each window: the mean over the real stems of 20 windows of other songs."""
    means: dict[str, list[float]] = {m: [] for m in METRICS}
    for e, others in zip(examples, other_songs(examples), strict=True):
        found = _scores([e] * len(others), [real[i] for i in others])
        for m in METRICS:
            means[m].append(float(found[m].mean()))
    return {m: np.array(values) for m, values in means.items()}


def _positions(examples: Sequence[Example], events: dict[str, list[dict]]) -> dict[str, ndarray]:
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


@contextmanager
def _mapper(workers: int) -> Iterator[Callable]:
    if not workers:
        yield map
        return
    # Once here first: workers that compile librosa's functions together spoil numba's cache.
    _find_events((np.random.default_rng(0).normal(size=(1, 64000)).astype(np.float32) / 10, 32000))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield pool.map


if __name__ == "__main__":
    report(arguments())
