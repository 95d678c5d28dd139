"""Claim 1: with the context token, the model listens."""

from __future__ import annotations

from typing import Any

from evidence.content import Cost, finding, panel, table
from evidence.desk import WINDOW_S, Desk
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.metrics.listening_gap import hear_conditions, listening_gap
from stage_lite.metrics.studio import METRICS, scores_of

TITLE = "The context token makes it listen"
ABOVE_ALL = (
    "drums: the right click gives a higher beat F1 than another",
    "drums: the right mix gives a higher beat F1 than another",
    "bass: the right mix gives a higher beat F1 than another",
)
TARGETS, CONDITIONS = ("drums", "bass"), ("click", "mix")
SHOWN_METRICS = {"beat_f1": "beat F1", "onset_alignment": "onset alignment"}
SHOWN_LOSSES = {"loss": "loss", "loss_hidden": "loss, past hidden"}


def cost(n: int, seeds: int) -> Cost:
    rows = 2 + 2 * len(CONDITIONS)
    return Cost(len(TARGETS) * rows * n * WINDOW_S, len(TARGETS) * (rows + 3) * n * WINDOW_S)


def run(desk: Desk) -> dict[str, Any]:
    """nano with the right context, another song's and none, beside nano-base and the real stem."""
    studio, base = desk.studio(), desk.studio(desk.base)
    tables, findings, panels, n_songs = [], [], [], 0
    for target in TARGETS:
        windows = desk.windows(target, CONDITIONS)
        examples, losses, events = hear_conditions(studio, target, windows)
        result = listening_gap(examples, losses, events)
        spread = Bootstrap([e.song_id for e in examples])
        name = f"{target}, {desk.base.config.name}"
        of_base = base.events(name, base.generate(name, examples), examples)
        scores = {key: scores_of(examples, found) for key, found in events.items()}
        scores["base"] = scores_of(examples, of_base)
        losses["base"] = base.losses(name, examples)
        columns = SHOWN_METRICS | SHOWN_LOSSES
        base_line = {m: spread.mean(scores["base"][m]) for m in SHOWN_METRICS}
        base_line |= {m: spread.mean(losses["base"][m]) for m in SHOWN_LOSSES}
        lines = {"real stem (ceiling)": result["real"]}
        for condition, own in result["conditions"].items():
            lines[f"right {condition}"] = own["right"]
            lines[f"another song's {condition} (floor)"] = own["shuffled"]
        lines |= {
            "no context": result["none"],
            f"{desk.base.config.name}, which has no token": base_line,
            "another song's real stem (floor)": result["other"],
        }
        lines |= {f"the {c} itself": result["conditions"][c]["context"] for c in CONDITIONS}
        rows = [[name, *(line.get(m) for m in columns)] for name, line in lines.items()]
        tables.append(table(f"{target}, {len(examples)} windows of {result['n_songs']} songs",
                            ["", *columns.values()], rows))  # fmt: skip
        rows = [[c, *(result["conditions"][c]["gap_closed"][m] for m in METRICS)]
                for c in CONDITIONS]  # fmt: skip
        tables.append(table(f"{target}: share of the gap that is closed, (right - another song's "
                            "context) / (real - another song's stem)",
                            ["context", *(SHOWN_METRICS[m] for m in METRICS)], rows))  # fmt: skip
        for condition in CONDITIONS:
            right = f"{condition}/right"
            for other, words in (
                (f"{condition}/shuffled", f"another song's {condition}"),
                ("none", "no context"),
                ("base", desk.base.config.name),
            ):
                gap = spread.mean(scores[right]["beat_f1"] - scores[other]["beat_f1"])
                said = f"{target}: the right {condition} gives a higher beat F1 than {words}"
                findings.append(finding(said, gap))
            gap = spread.mean(losses[f"{condition}/shuffled"]["loss"] - losses[right]["loss"])
            said = f"{target}: the right {condition} makes the real codes likelier, in nats"
            findings.append(finding(said, gap, digits=3))
        points = [(label, _kind(label), line["beat_f1"]) for label, line in lines.items()]
        panels.append(panel(f"{target}, beat F1", "beat F1", points))
        n_songs = max(n_songs, result["n_songs"])
    return {
        "n": desk.n,
        "n_songs": n_songs,
        "settings": {"guidance": 3.0, "seconds a window": examples[0].duration_s},
        "tables": tables,
        "findings": findings,
        "panels": panels,
    }


def _kind(label: str) -> str:
    for word, kind in (("ceiling", "ceiling"), ("floor", "floor"), ("right", "right")):
        if word in label:
            return kind
    return "other"
