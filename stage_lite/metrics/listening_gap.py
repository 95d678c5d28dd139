"""How much of the gap between another song's context and the right one does a model close?

    (right - another song's context) / (real stem - another song's stem)

0 for a model that does not listen, 1 for one that keeps to the music as the real stem does. It may
pass 1: a plain beat is easier to track than what a player plays.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy import ndarray

from ..examples import Example, shuffle_contexts
from .bootstrap import Bootstrap
from .same_windows import other_songs
from .sounds import Clip
from .studio import (
    LOSSES,
    METRICS,
    Events,
    Studio,
    scores_of,
    scores_of_others,
    without_context,
)


def hear_conditions(
    studio: Studio,
    name: str,
    windows: dict[str, list[Example]],
    real: Sequence[Clip] | None = None,
) -> tuple[list[Example], dict[str, dict[str, ndarray]], dict[str, Events]]:
    """Everything that `listening_gap` compares: with the right context, another song's, and none.

    Args:
        studio: of the model.
        name: for the progress.
        windows: condition -> the same windows, from `same_windows`.
        real: the windows' stems as audio; None: what the codec makes of their codes.

    Returns:
        The windows, losses and events, as `listening_gap` takes them.
    """
    rows = {"none": [without_context(e) for e in next(iter(windows.values()))]}
    for condition, examples in windows.items():
        rows[f"{condition}/right"] = examples
        rows[f"{condition}/shuffled"] = shuffle_contexts(examples)
    examples = rows["none"]
    losses = {key: studio.losses(f"{name}, {key}", row) for key, row in rows.items()}
    decoded = studio.real(examples)
    clips = {"real": decoded} if real is None else {"real": list(real), "real_decoded": decoded}
    clips |= {key: studio.generate(f"{name}, {key}", row) for key, row in rows.items()}
    clips |= {f"{key}/context": studio.contexts(row) for key, row in windows.items()}
    events = {key: studio.events(f"{name}, {key}", made, examples) for key, made in clips.items()}
    return examples, losses, events


def listening_gap(
    examples: Sequence[Example], losses: dict[str, dict[str, ndarray]], events: dict[str, Events]
) -> dict:
    """Scores of each window against its own beats, their means, gaps and intervals.

    Args:
        examples: the windows.
        losses: "none", "<condition>/right", "<condition>/shuffled" -> name -> one per window.
        events: the same names, "real" and, if that is another, "real_decoded" -> beats and onsets
            of each window; "<condition>/context": what the tracker hears in the context itself.

    Returns:
        "n", "n_songs"; "real", "other" (other songs' real stems), "none" and, per condition,
        "right", "shuffled", "gap" and "gap_closed" -> metric -> value, low and high.
    """
    spread = Bootstrap([e.song_id for e in examples])
    scores = {name: scores_of(examples, found) for name, found in events.items()}
    scores["other"] = scores_of_others(examples, events["real"], other_songs(examples))
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
