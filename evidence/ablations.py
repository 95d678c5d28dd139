"""What in the recipe counts: the new row, context dropout, positions, LoRA."""

from __future__ import annotations

from typing import Any

from evidence.content import Cost
from evidence.desk import Desk
from evidence.side_by_side import CONDITIONS, SideBySide
from evidence.small_models import Recipe, SmallModels

TITLE = "Ablations of the recipe"
ABOVE_ALL = ("click, past hidden",)
PLAIN = "as in (a): kaiming, dropout 0.1, aligned, all weights"
CHANGES: dict[str, dict[str, Any]] = {
    "positions restarted once, as STAGE's": {"anchor_frames": None},
    "context dropout 0": {"context_dropout": 0.0},
    "context dropout 0.3": {"context_dropout": 0.3},
    "new row: mean of the codes": {"init": "mean"},
    "new row: zeros": {"init": "zeros"},
    "LoRA of rank 8": {"lora_rank": 8},
}


def cost(n: int, seeds: int) -> Cost:
    return Cost(steps=(1 + len(CHANGES)) * seeds)


def run(desk: Desk) -> dict[str, Any]:
    """One thing changed at a time, everything else as in the small trainings of claim 2."""
    steps = desk.args.steps
    recipes = {PLAIN: Recipe(steps=steps)}
    recipes |= {name: Recipe(steps=steps, **change) for name, change in CHANGES.items()}
    study = SideBySide(SmallModels(desk), recipes, desk.args.seed_numbers)
    findings = [
        study.finding(f"{condition}, past hidden: (a) gives a larger loss gap than '{name}'",
                      study.gap(PLAIN, condition), study.gap(name, condition))
        for name in CHANGES
        for condition in CONDITIONS
    ]  # fmt: skip
    return study.content(
        tables=[study.table("loss gap: another song's context minus the right one")],
        findings=findings,
        panels=[study.panel(c, lambda n: "right" if n == PLAIN else "other") for c in CONDITIONS],
    )
