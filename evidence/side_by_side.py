"""Small trainings that differ in one thing, compared window by window over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from evidence.content import Estimate, finding, panel, table
from evidence.small_models import CONDITIONS, Recipe, SmallModels
from stage_lite.metrics.bootstrap import Bootstrap

HIDDEN, SEEN = "_hidden", ""  # the target's own past, as the losses' names end


class SideBySide:
    """What several recipes have learnt, over seeds.

    Args:
        small: trains and measures.
        recipes: name -> recipe; the seed in it does not count.
        seeds: of each.
    """

    def __init__(self, small: SmallModels, recipes: Mapping[str, Recipe], seeds: Sequence[int]):
        from dataclasses import replace

        self.small, self.names, self.seeds = small, list(recipes), list(seeds)
        self._losses: dict[tuple[str, str], list[dict[str, ndarray]]] = {}
        for seed in seeds:  # the first seed of all comes first: a table early, certainty later
            for name, recipe in recipes.items():
                for condition in CONDITIONS:
                    found = small.losses(replace(recipe, seed=seed), condition)
                    self._losses.setdefault((name, condition), []).append(found)
        examples = small.windows()[CONDITIONS[0]]
        self.n, self.spread = len(examples), Bootstrap([e.song_id for e in examples])

    def of(self, name: str, condition: str, what: str) -> Float[ndarray, "seeds n ..."]:
        """One of the losses of `SmallModels.losses`."""
        return np.stack([found[what] for found in self._losses[name, condition]])

    def gap(self, name: str, condition: str, end: str = HIDDEN) -> Float[ndarray, "seeds n"]:
        """Loss with another song's context minus loss with the right one, in nats."""
        shuffled, right = (self.of(name, condition, kind + end) for kind in ("shuffled", "right"))
        return shuffled - right

    def mean(self, values: Float[ndarray, "seeds n"]) -> Estimate:
        """Over seeds and windows, with an interval over songs."""
        return self.spread.mean(values.mean(axis=0))

    def finding(self, what: str, a: ndarray, b: ndarray, digits: int = 3) -> dict[str, Any]:
        """Is a above b? Shown only if the interval says so and every seed has the same sign."""
        per_seed = (a - b).mean(axis=1)
        agree = bool((per_seed > 0).all() or (per_seed < 0).all())
        return finding(what, self.mean(a - b), digits=digits, agree=agree)

    def table(self, title: str, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Gaps of each recipe, with the range over its seeds, and of the shipped model."""
        head = ["", *(f"{c}, past hidden" for c in CONDITIONS), "click, over seeds",
                *(f"{c}, past there" for c in CONDITIONS), "loss, right mix"]  # fmt: skip
        rows: list[list[Any]] = [
            [
                name,
                *(self.mean(self.gap(name, c)) for c in CONDITIONS),
                _range(self.gap(name, "click").mean(axis=1)),
                *(self.mean(self.gap(name, c, SEEN)) for c in CONDITIONS),
                self.mean(self.of(name, "mix", "right")),
            ]
            for name in (names or self.names)
        ]
        shipped = {c: self.small.losses_of_shipped(c) for c in CONDITIONS}
        gaps = [
            self.spread.mean(shipped[c][f"shuffled{end}"] - shipped[c][f"right{end}"])
            for end in (HIDDEN, SEEN)
            for c in CONDITIONS
        ]
        model = self.small.desk.model.config.name
        rows.append([f"{model}, all of its training (ceiling)", *gaps[:2], "", *gaps[2:],
                     self.spread.mean(shipped["mix"]["right"])])  # fmt: skip
        rows.append(["a model that does not listen (floor)", 0.0, 0.0, "", 0.0, 0.0, None])
        return table(title, head, rows, digits=3)

    def panel(self, condition: str, colour: Callable[[str], str]) -> dict[str, Any]:
        """The gaps with the past hidden."""
        points = [(n, colour(n), self.mean(self.gap(n, condition))) for n in self.names]
        return panel(f"{condition}, past hidden", "loss gap, nats", points, zero=True)

    def content(self, **more: Any) -> dict[str, Any]:
        """What every such row says of itself."""
        recipe = Recipe()
        settings = {
            "seeds": self.seeds,
            "steps": self.small.desk.args.steps,
            "windows a step": recipe.batch_size,
            "seconds a window": self.small.windows()["click"][0].duration_s,
            "training songs": len(self.small.data.song_ids),
        }
        return {"n": self.n, "n_songs": self.spread.n_songs, "settings": settings} | more


def _range(values: ndarray) -> str:
    return f"{values.min():.3f} to {values.max():.3f}" if len(values) > 1 else f"{values[0]:.3f}"
