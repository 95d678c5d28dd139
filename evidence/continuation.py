"""Claim 4: it goes on in time after the context has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from evidence.content import Cost, finding, panel, table
from evidence.desk import WINDOW_S, Desk
from stage_lite.examples import Example, beats_in, shuffle_contexts
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.metrics.same_windows import other_songs
from stage_lite.metrics.sounds import Clip
from stage_lite.metrics.studio import (
    METRICS,
    Studio,
    scores_of,
    scores_of_others,
    without_context,
)

TITLE = "It continues after the context ends"
ABOVE_ALL = ("click: after its end", "mix: after its end")
SHARE = 3 / 8  # of the window that has a context
CONDITIONS = ("click", "mix")


def cost(n: int, seeds: int) -> Cost:
    return Cost((1 + 3 * len(CONDITIONS)) * n * WINDOW_S, (2 + 3 * len(CONDITIONS)) * n * 5)


def run(desk: Desk) -> dict[str, Any]:
    """Beat F1 in the last 5 of 8 s, of which the model has heard the first 3 only."""
    studio, windows = desk.studio(), desk.windows("drums", CONDITIONS)
    end = round(windows["click"][0].duration_s * SHARE * desk.model.frame_rate)  # frames
    start_s = end / desk.model.frame_rate
    kept = [i for i, e in enumerate(windows["click"]) if len(_after(e, start_s).beat_times) > 1]
    windows = {c: [examples[i] for i in kept] for c, examples in windows.items()}
    plain = [without_context(e) for e in windows["click"]]
    later = [_after(e, start_s) for e in plain]
    rows = {"no context": plain}
    for condition, examples in windows.items():
        short = [dataclasses.replace(e, context_codes=e.context_codes[:, :end]) for e in examples]
        rows[f"{start_s:g} s of the right {condition}"] = short
        rows[f"{start_s:g} s of another song's {condition} (floor)"] = shuffle_contexts(short)
        rows[f"all of the right {condition}"] = examples
    clips = {name: studio.generate(f"drums, {name}", row) for name, row in rows.items()}
    clips = {"real stem (ceiling)": studio.real(plain)} | clips
    events = {
        name: studio.events(f"later, {name}", _cut(studio, made, start_s), later)
        for name, made in clips.items()
    }
    spread = Bootstrap([e.song_id for e in later])
    scores = {name: scores_of(later, found) for name, found in events.items()}
    real = events["real stem (ceiling)"]
    scores["another song's real stem (floor)"] = scores_of_others(later, real, other_songs(later))
    lines = {name: {m: spread.mean(s[m]) for m in METRICS} for name, s in scores.items()}
    findings = []
    for condition in CONDITIONS:
        right = scores[f"{start_s:g} s of the right {condition}"]["beat_f1"]
        shuffled = scores[f"{start_s:g} s of another song's {condition} (floor)"]["beat_f1"]
        whole = scores[f"all of the right {condition}"]["beat_f1"]
        findings += [
            finding(f"{condition}: after its end the right one still gives a higher beat F1 than "
                    "another song's", spread.mean(right - shuffled)),
            finding(f"{condition}: the same against no context",
                    spread.mean(right - scores["no context"]["beat_f1"])),
            finding(f"{condition}: a context that goes on to the end gives more",
                    spread.mean(whole - right)),
        ]  # fmt: skip
    return {
        "n": len(later),
        "n_songs": spread.n_songs,
        "settings": {
            "guidance": 3.0,
            "seconds of context": start_s,
            "seconds judged": later[0].duration_s,
        },
        "tables": [
            table(
                f"drums, from second {start_s:g} on",
                ["", "beat F1", "onset alignment"],
                [[name, *(line[m] for m in METRICS)] for name, line in lines.items()],
            )
        ],
        "findings": findings,
        "panels": [
            panel(
                f"drums, beat F1 after second {start_s:g}",
                "beat F1",
                [(name, _kind(name), line["beat_f1"]) for name, line in lines.items()],
            )
        ],
    }


def _after(e: Example, start_s: float) -> Example:
    """The part of a window behind `start_s`, to be scored."""
    return dataclasses.replace(
        e,
        beat_times=beats_in(e.beat_times, start_s, e.duration_s - start_s),
        downbeat_times=beats_in(e.downbeat_times, start_s, e.duration_s - start_s),
        duration_s=e.duration_s - start_s,
    )


def _cut(studio: Studio, clips: Sequence[Clip], start_s: float) -> list[Clip]:
    first = round(start_s * studio.sounds.sample_rate)
    return [
        studio.sounds.of_clip(clip, ["from", first], lambda wav: wav[:, first:]) for clip in clips
    ]


def _kind(name: str) -> str:
    if "ceiling" in name:
        return "ceiling"
    if "floor" in name:
        return "floor"
    return "right" if "right" in name else "other"
