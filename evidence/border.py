"""What the delay does at the border: the whole sequence delayed (STAGE), or each part alone."""

from __future__ import annotations

from typing import Any

from evidence.content import Cost, panel, table
from evidence.desk import Desk
from evidence.side_by_side import CONDITIONS, SideBySide
from evidence.small_models import BORDER, Recipe, SmallModels

TITLE = "What the delay does at the border"
ABOVE_ALL = ("click, codebook 0", "mix, codebook 0")
WHOLE, APART = "delay over the whole", "delay over each part alone"


def cost(n: int, seeds: int) -> Cost:
    return Cost(steps=2 * seeds)


def run(desk: Desk) -> dict[str, Any]:
    """Loss of each codebook in the first ten frames of the target, right context, past there."""
    recipes = {
        WHOLE: Recipe(steps=desk.args.steps),
        APART: Recipe(way="apart", steps=desk.args.steps),
    }
    study = SideBySide(SmallModels(desk), recipes, desk.args.seed_numbers)
    tables, findings, panels = [], [], []
    for condition in CONDITIONS:
        found = {name: study.of(name, condition, "border") for name in recipes}  # [seeds, n, 10, K]
        n_q = found[WHOLE].shape[-1]
        for k in range(n_q):
            a, b = (found[name][..., k].mean(axis=2) for name in (APART, WHOLE))
            said = (
                f"{condition}, codebook {k}: the first {BORDER} frames cost less with the " + WHOLE
            )
            findings.append(study.finding(said, a, b))
        shipped = study.small.losses_of_shipped(condition)["border"]  # [n, 10, K]
        rows = [
            [f"frame {t}", *(study.mean(found[name][:, :, t, k]) for k in range(n_q)
                             for name in recipes)]
            for t in range(BORDER)
        ]  # fmt: skip
        rows.append(["mean", *(study.mean(found[name][..., k].mean(axis=2)) for k in range(n_q)
                               for name in recipes)])  # fmt: skip
        of_shipped = [[study.spread.mean(shipped[:, :, k].mean(axis=1)), None] for k in range(n_q)]
        name = f"mean of {desk.model.config.name}, trained with {WHOLE}"
        rows.append([name, *(cell for pair in of_shipped for cell in pair)])
        head = ["", *(f"codebook {k}, {part}" for k in range(n_q) for part in ("whole", "apart"))]
        tables.append(table(f"{condition}: loss in nats", head, rows))
        points = [
            (f"codebook {k}, {short}", kind, study.mean(found[name][..., k].mean(axis=2)))
            for k in range(n_q)
            for name, short, kind in ((WHOLE, "whole", "right"), (APART, "apart", "other"))
        ]
        panels.append(panel(f"{condition}, first {BORDER} frames", "loss, nats", points))
    tables.insert(0, study.table("loss gap of each: another song's context minus the right one"))
    return study.content(tables=tables, findings=findings, panels=panels)
