"""Claim 2: a prefix behind a token is a better way in than others."""

from __future__ import annotations

from typing import Any

from evidence.content import Cost
from evidence.desk import Desk
from evidence.side_by_side import CONDITIONS, SEEN, SideBySide
from evidence.small_models import Recipe, SmallModels

TITLE = "The prefix against other ways in"
ABOVE_ALL = ("mix, past hidden",)
NAMES = {
    "prefix": "(a) prefix and context token",
    "joined": "(b) no separator",
    "summed": "(c) summed onto the input, frame by frame",
    "attended": "(d) cross-attention, beside the words",
}


def cost(n: int, seeds: int) -> Cost:
    return Cost(steps=len(NAMES) * seeds)


def run(desk: Desk) -> dict[str, Any]:
    """The same data, steps and seeds with the context given in four ways. They are judged by what
    the right context is worth in nats; nothing is generated."""
    recipes = {name: Recipe(way=way, steps=desk.args.steps) for way, name in NAMES.items()}
    study = SideBySide(SmallModels(desk), recipes, desk.args.seed_numbers)
    first, *others = NAMES.values()
    findings = []
    for name in others:
        for condition in CONDITIONS:
            a, b = study.gap(first, condition), study.gap(name, condition)
            said = f"{condition}, past hidden: the prefix gives a larger loss gap than {name}"
            findings.append(study.finding(said, a, b))
            a, b = study.gap(first, condition, SEEN), study.gap(name, condition, SEEN)
            said = f"{condition}, past there: the prefix gives a larger loss gap than {name}"
            findings.append(study.finding(said, a, b))
    return study.content(
        tables=[study.table("loss gap of each way: another song's context minus the right one")],
        findings=findings,
        panels=[study.panel(c, lambda n: "right" if n == first else "other") for c in CONDITIONS],
    )
