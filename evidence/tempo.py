"""Claim 3: the metronome sets the tempo."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evidence.content import Cost, finding, panel, table
from evidence.desk import WINDOW_S, Desk
from stage_lite.examples import Example
from stage_lite.generate import generate_codes
from stage_lite.metrics.beats import beat_f1_of_times
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.metrics.drift import beat_drift_of_times
from stage_lite.metrics.sounds import Clip
from stage_lite.metrics.studio import Events, scores_of, without_context
from stage_lite.metrics.systems import window_seed
from stage_lite.metrics.tempo import tempo_error_of_times
from stage_lite.metronome import Tempo, beat_grid, click_track
from stage_lite.result_store import key_of
from stage_lite.shards import ShardDataset

TITLE = "The metronome sets the tempo"
ABOVE_ALL = ("beat F1 is higher with the click than with the tempo in words", "curves: beat F1")
TEMPI = (60, 75, 90, 110, 130, 150, 170, 190)  # bpm
CURVES: dict[str, Tempo] = {
    "accelerando, 90 to 140 bpm": [(0.0, 90.0), (8.0, 140.0)],
    "ritardando, 140 to 90 bpm": [(0.0, 140.0), (8.0, 90.0)],
    "rubato, 110 bpm and 15 % to either side in 4 s": lambda t: (
        110 * (1 + 0.15 * math.sin(math.pi * t / 2))
    ),
    "a jump at 4 s, 100 to 130 bpm": [(0.0, 100.0), (4.0, 100.0), (4.02, 130.0), (8.0, 130.0)],
}
TOLERANCE = 4.0  # percent, of a tempo that counts as right
LONG_S = 30.0
SHARE_LONG = 4  # one clip of 30 s for so many windows of 8 s


def cost(n: int, seeds: int) -> Cost:
    long_s = n // SHARE_LONG * LONG_S
    return Cost(3 * n * WINDOW_S + 2 * long_s, 5 * n * WINDOW_S + long_s)


def run(desk: Desk) -> dict[str, Any]:
    """Drums to clicks at given tempi, beside the same tempo asked for in words."""
    n = desk.n
    windows = desk.windows("drums", ("click",))["click"]
    steady = _clicks(desk, windows, [TEMPI[i % len(TEMPI)] for i in range(n)], "steady")
    names = [list(CURVES)[i % len(CURVES)] for i in range(n)]
    curved = _clicks(desk, windows, [CURVES[name] for name in names], "curves")
    in_words = [_in_words(e) for e in steady]
    studio = desk.studio()
    heard: dict[str, Events] = {}
    for name, row in (("steady", steady), ("curves", curved), ("words", in_words)):
        heard[name] = studio.events(name, studio.generate(f"click, {name}", row), row)
    for name, row in (("steady", steady), ("curves", curved)):
        heard[f"{name} click"] = studio.events(f"{name}, click", studio.contexts(row), row)
    spread = Bootstrap([e.song_id for e in windows])
    own = {
        "click": _scores(steady, heard["steady"]),
        "words": _scores(steady, heard["words"]),
        "floor": _scores([steady[(i + 1) % n] for i in range(n)], heard["steady"]),
        "ceiling": _scores(steady, heard["steady click"]),
    }
    of_curves = {
        "click": _scores(curved, heard["curves"]),
        "floor": _scores([curved[(i + 1) % n] for i in range(n)], heard["curves"]),
        "ceiling": _scores(curved, heard["curves click"]),
    }
    low, high = _trained_tempi(desk)
    labels = [f"{bpm} bpm{'' if low <= bpm <= high else ' (not in training)'}" for bpm in TEMPI]
    by_tempo = [labels[i % len(TEMPI)] for i in range(n)]
    labels = [label for label in labels if label in by_tempo]
    long_row, long_findings, n_long = _long(desk, steady)
    findings = [
        finding("beat F1 is higher with the click than with the tempo in words",
                spread.mean(own["click"]["beat_f1"] - own["words"]["beat_f1"])),
        finding(f"the tempo is right (within {TOLERANCE:g} %, octaves apart) more often than with "
                "the tempo in words", spread.mean(own["click"]["right"] - own["words"]["right"])),
        finding("beat F1 is higher than against another tempo's clicks",
                spread.mean(own["click"]["beat_f1"] - own["floor"]["beat_f1"])),
        finding("curves: beat F1 is higher than against another curve's clicks",
                spread.mean(of_curves["click"]["beat_f1"] - of_curves["floor"]["beat_f1"])),
        *(finding(f"{label}: beat F1 is higher than against another tempo's clicks",
                  _of(by_tempo, label, windows, own["click"]["beat_f1"] - own["floor"]["beat_f1"]))
          for label in labels if "not in" in label),
        *long_findings,
    ]  # fmt: skip
    head = ["", "beat F1, click", "beat F1, tempo in words", "another tempo's clicks (floor)",
            "the click itself (ceiling)", "tempo right, click", "tempo right, words"]  # fmt: skip
    rows = [_row("all", [""] * n, "", windows, own)]
    rows += [_row(label, by_tempo, label, windows, own) for label in labels]
    curve_rows = [_row("all", [""] * n, "", windows, of_curves)]
    curves = [name for name in CURVES if name in names]
    curve_rows += [_row(name, names, name, windows, of_curves) for name in curves]
    points = [(label.split(" (")[0], "right", row[1]) for label, row in zip(
        labels, rows[1:], strict=True)]  # fmt: skip
    points += [("in words", "other", rows[0][2]), ("floor", "floor", rows[0][3]),
               ("click itself", "ceiling", rows[0][4])]  # fmt: skip
    curve_points = [(name.split(",")[0], "right", row[1])
                    for name, row in zip(curves, curve_rows[1:], strict=True)]  # fmt: skip
    curve_points += [("floor", "floor", curve_rows[0][3]),
                     ("click itself", "ceiling", curve_rows[0][4])]  # fmt: skip
    return {
        "n": n,
        "n_songs": spread.n_songs,
        "settings": {"guidance": 3.0, "seconds a window": windows[0].duration_s,
                     "bpm in training": [round(low), round(high)],
                     "clips of 30 s": n_long},
        "tables": [
            table(f"steady clicks, {n} windows, {n // len(TEMPI)} at each tempo", head, rows),
            table(f"tempo curves, {n} windows; training had none", head, curve_rows),
            table(f"{n_long} clips of {LONG_S:g} s", ["", "estimate"], long_row),
        ],
        "findings": findings,
        "panels": [panel("steady clicks", "beat F1", points),
                   panel("curves", "beat F1", curve_points)],
    }  # fmt: skip


def _clicks(
    desk: Desk, windows: Sequence[Example], tempi: Sequence[Tempo], name: str, long: float = 0.0
) -> list[Example]:
    """The windows' words with a click of another tempo, which begins anywhere in a beat."""
    rate, rows, wavs = desk.model.sample_rate, [], []
    for i, (e, bpm) in enumerate(zip(windows, tempi, strict=True)):
        length_s = long or e.duration_s
        start_s = float(np.random.default_rng([desk.seed, i]).uniform(0, 0.3))
        beats, downbeats = beat_grid(bpm, duration_s=length_s, start_s=start_s)
        wavs.append(click_track(beats, downbeats, duration_s=length_s, sample_rate=rate))
        rows.append(
            dataclasses.replace(
                e, beat_times=beats, downbeat_times=downbeats, duration_s=length_s,
                bpm=bpm if isinstance(bpm, int) else None, condition="click",
            )
        )  # fmt: skip
    codes = desk.codes_of(f"clicks, {name}", wavs)
    return [dataclasses.replace(e, context_codes=c) for e, c in zip(rows, codes, strict=True)]


def _in_words(e: Example) -> Example:
    """The tempo as the descriptions of the training songs say it, and no context."""
    pace = "slow" if e.bpm < 90 else "medium" if e.bpm < 130 else "fast"
    return dataclasses.replace(without_context(e), description=f"{e.description}, {pace} tempo")


def _scores(examples: Sequence[Example], events: Events) -> dict[str, np.ndarray]:
    scores = scores_of(examples, events)
    errors = [
        tempo_error_of_times(e.beat_times, x["beats"]).octave_percent
        for e, x in zip(examples, events, strict=True)
    ]
    # No tempo is not the right tempo.
    scores["right"] = np.array([float(abs(x) <= TOLERANCE) for x in errors])
    return scores


def _row(
    name: str, groups: Sequence[str], group: str, windows: Sequence[Example], scores: dict
) -> list[Any]:
    def cell(kind: str, metric: str) -> Any:
        return _of(groups, group, windows, scores[kind][metric]) if kind in scores else None

    kinds = ("click", "words", "floor", "ceiling")
    rights = [cell(kind, "right") for kind in ("click", "words")]
    return [name, *(cell(kind, "beat_f1") for kind in kinds), *rights]


def _of(
    groups: Sequence[str], group: str, windows: Sequence[Example], values: np.ndarray
) -> dict[str, float]:
    """Mean over one group of windows."""
    chosen = [i for i, g in enumerate(groups) if g == group]
    return Bootstrap([windows[i].song_id for i in chosen]).mean(values[chosen])


def _trained_tempi(desk: Desk) -> tuple[float, float]:
    """Lowest and highest bpm of the training songs that are here."""
    data = ShardDataset(desk.tokens[:1], "drums", conditions="none", split="train",
                        window_s=desk.args.longest_s, verify=False)  # fmt: skip
    songs = {song_id: song for shard in data.shards for song_id, song in shard.songs.items()}
    bpm = [songs[song_id]["bpm"] for song_id in data.song_ids]
    return min(bpm), max(bpm)


# --- drift ----------------------------------------------------------------------------------------


def _long(desk: Desk, steady: Sequence[Example]) -> tuple[list, list, int]:
    """30 s in windows of 8 s that go on from one another: does the beat stay?"""
    n = max(2, len(steady) // SHARE_LONG)
    long_s = LONG_S if desk.args.longest_s >= WINDOW_S else 3 * desk.args.longest_s
    # Every tempo equally often, none that training had not.
    inside = [e for e in steady if 60 < e.bpm < 190]
    chosen = (inside or list(steady))[:n]
    rows = _clicks(desk, chosen, [e.bpm for e in chosen], "long", long_s)
    studio = desk.studio()
    events = studio.events("long", _generate_long(desk, rows), rows)
    drift = [beat_drift_of_times(e.beat_times, x["beats"])
             for e, x in zip(rows, events, strict=True)]  # fmt: skip
    spread = Bootstrap([e.song_id for e in rows])
    part_s = long_s / 4
    parts = {
        name: np.array([
            beat_f1_of_times(_inside(e.beat_times, start, part_s),
                             _inside(x["beats"], start, part_s))
            for e, x in zip(rows, events, strict=True)
        ])
        for name, start in (("first", 0.0), ("last", long_s - part_s))
    }  # fmt: skip
    table_rows = [
        [f"beat F1, first {part_s:g} s", spread.mean(parts["first"])],
        [f"beat F1, last {part_s:g} s", spread.mean(parts["last"])],
        ["drift, ms per s, either way", spread.mean(np.abs([d.ms_per_s for d in drift]))],
        ["wander around it, ms", spread.mean([d.wander_ms for d in drift])],
    ]
    findings = [
        finding(f"over {long_s:g} s the beat gets worse: beat F1 of the first {part_s:g} s minus "
                "that of the last", spread.mean(parts["first"] - parts["last"]))
    ]  # fmt: skip
    return table_rows, findings, len(rows)


def _generate_long(desk: Desk, rows: Sequence[Example]) -> list[Clip]:
    model, studio = desk.model, desk.studio()
    n_frames = round(rows[0].duration_s * model.frame_rate)
    window = min(round(WINDOW_S * model.frame_rate), n_frames)
    keys = [
        key_of("long", studio.lm_hash, n_frames, window, e.description, e.context_codes,
               window_seed(desk.seed, e))
        for e in rows
    ]  # fmt: skip

    def compute(batch: Sequence[Example]) -> list:
        made = generate_codes(
            model.lm,
            [e.context_codes for e in batch],
            [e.description for e in batch],
            n_frames,
            seed=[window_seed(desk.seed, e) for e in batch],
            anchor_frames=model.config.anchor_frames,
            window_frames=window,
            stride_frames=window // 2,
        )
        return made.codes.tolist()

    jobs = dict(zip(keys, rows, strict=True))
    desk.store.fill("generated, long", jobs, compute, desk.args.batch_size)
    return [studio.sounds.of_codes(torch.tensor(desk.store[key])) for key in keys]


def _inside(times: np.ndarray, start_s: float, length_s: float) -> np.ndarray:
    """Times of one part of a clip, from its start on."""
    return times[(times >= start_s) & (times < start_s + length_s)] - start_s
