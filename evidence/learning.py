"""Steps against what is heard: a learning curve from the first 100 steps on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from evidence.content import Cost, finding, panel, table
from evidence.desk import Desk
from evidence.side_by_side import CONDITIONS, HIDDEN, SEEN
from evidence.small_models import Recipe, SmallModels
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.metrics.same_windows import other_songs
from stage_lite.metrics.studio import METRICS, scores_of, scores_of_others

TITLE = "Steps against beat F1"
ABOVE_ALL = ("beat F1 after",)
TIMES = 4  # as many steps as the other small trainings have
LOOKS = 5  # at a quarter as many steps, and at each double of that
CLIP_S = 4.0  # what is generated and judged; training windows are shorter


def cost(n: int, seeds: int) -> Cost:
    clips = LOOKS * n * CLIP_S
    return Cost(clips, clips + n * CLIP_S, steps=TIMES - 1)


def run(desk: Desk) -> dict[str, Any]:
    """One run of recipe (a), looked at on its way: loss gaps, and drums played to a click."""
    small = SmallModels(desk)
    steps = sorted({max(1, TIMES * desk.args.steps >> i) for i in range(LOOKS)})
    examples = desk.windows("drums", CONDITIONS, CLIP_S, fewest_beats=3)["click"]
    spread = Bootstrap([e.song_id for e in examples])
    short = small.windows()["click"]
    spread_short = Bootstrap([e.song_id for e in short])
    others = other_songs(examples)
    rows, heard, gaps, curve = [], {}, {}, []
    for step in steps:
        recipe = Recipe(seed=desk.args.seed_numbers[0], steps=step)
        for condition in CONDITIONS:
            losses = small.losses(recipe, condition)
            for end in (HIDDEN, SEEN):
                found = losses[f"shuffled{end}"] - losses[f"right{end}"]
                gaps[step, condition, end] = spread_short.mean(found)
        studio = desk.studio(small.model(recipe))
        name = f"after {step} steps"
        events = studio.events(name, studio.generate(name, examples), examples)
        heard[step] = scores_of(examples, events)
        floor = scores_of_others(examples, events, others)
        means = {m: spread.mean(heard[step][m]) for m in METRICS}
        floors = {m: spread.mean(floor[m]) for m in METRICS}
        rows.append([f"{step} steps", *(cell for m in METRICS for cell in (means[m], floors[m])),
                     *(gaps[step, c, HIDDEN] for c in CONDITIONS)])  # fmt: skip
        curve.append((f"{step} steps", "right", means["beat_f1"]))
        last_floor = floors["beat_f1"]
    real = desk.studio().events("4 s, real", desk.studio().real(examples), examples)
    of_real = {m: spread.mean(np.asarray(v)) for m, v in scores_of(examples, real).items()}
    rows.append(["real stem (ceiling)", of_real["beat_f1"], None, of_real["onset_alignment"],
                 None, None, None])  # fmt: skip
    head = ["", "beat F1", "against another song's beats (floor)", "onset alignment",
            "against another song's beats (floor)", "loss gap, click, past hidden",
            "loss gap, mix, past hidden"]  # fmt: skip
    points = [*curve, ("floor", "floor", last_floor), ("real", "ceiling", of_real["beat_f1"])]
    findings = [
        finding(f"beat F1 after {b} steps is higher than after {a}",
                spread.mean(heard[b]["beat_f1"] - heard[a]["beat_f1"]))
        for a, b in pairwise(steps)
    ]  # fmt: skip
    return {
        "n": len(examples),
        "n_songs": spread.n_songs,
        "settings": {"guidance": 3.0, "seconds a window": examples[0].duration_s, "steps": steps,
                     "windows a step": Recipe().batch_size},
        "tables": [table("drums played to the right click, and the gaps on the way", head, rows)],
        "findings": findings,
        "panels": [panel("drums from a click", "beat F1", points)],
    }  # fmt: skip
