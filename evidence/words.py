"""Claim 5: words still count, with a context there too.

The family that is asked for is another song's, so that the context cannot tell it: what agrees with
the words comes from the words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from evidence.content import Cost, Missing, finding, panel, table
from evidence.desk import Desk
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.metrics.beats import onset_alignment_of_times
from stage_lite.metrics.bootstrap import Bootstrap
from stage_lite.metrics.listen import Measure, onsets_measure, text_measure
from stage_lite.metrics.same_windows import other_songs
from stage_lite.metrics.sounds import Clip
from stage_lite.metrics.studio import Studio, without_context
from stage_lite.metrics.text import find_words, load_text_classifier

TITLE = "Words still count"
ABOVE_ALL = (
    "with a mix: the family asked for is likelier at guidance 3",
    "with a mix: the stem asked for",
)
TARGETS = ("drums", "bass")
COEFS = (0.0, 1.0, 3.0, 8.0)  # 1 is the same over words and over the context
WINDOW_S = 4.0
REAL = "real stem (ceiling)"
NO_WORDS = "mix, guidance 0 over the words (floor)"


def cost(n: int, seeds: int) -> Cost:
    clips = (3 * len(COEFS) - 1) * n * WINDOW_S
    return Cost(clips, clips + n * WINDOW_S)


def run(desk: Desk) -> dict[str, Any]:
    """How likely a classifier finds the family asked for, over guidance by words and by context."""
    try:
        classifier = load_text_classifier()
    except StageLiteError as error:
        raise Missing(f"the text classifier: {error}") from None
    measures = [text_measure(classifier), onsets_measure()]
    own = []
    for target in TARGETS:
        examples = desk.windows(target, ("mix",), WINDOW_S, desk.n, 2)["mix"]
        known = [e for e in examples if find_words(e.description, (), classifier.families)[1]]
        own += known[: desk.n // len(TARGETS)]  # families that the classifier does not know are out
    asked = _asked(own, classifier.families)
    alone = [without_context(e) for e in asked]
    settings = {f"words alone, guidance {c:g}": (alone, "text", c) for c in COEFS}
    settings[NO_WORDS] = (asked, "text", 0.0)
    settings["mix, no guidance (1)"] = (asked, "both", 1.0)
    for over, name in (("text", "words"), ("context", "mix")):  # 0 over the mix is words alone
        for coef in COEFS[2:]:
            settings[f"mix, guidance {coef:g} over the {name}"] = (asked, over, coef)
    settings["mix, guidance 3 over both (the default)"] = (asked, "both", 3.0)
    found = {}
    for name, (examples, over, coef) in settings.items():
        studio = desk.studio(cfg_coef=coef, cfg_over=over)
        clips = studio.generate(name, examples)
        found[name] = _hear(studio, name, clips, asked, own, measures)
    studio = desk.studio()
    found[REAL] = _hear(studio, "real", studio.real(own), own, own, measures)
    spread = Bootstrap([e.song_id for e in own])
    columns = ("stem", "family", "own family", "onsets")
    rows = [[name, *(spread.mean(scores[c]) for c in columns)] for name, scores in found.items()]
    no_words, words = NO_WORDS, "mix, guidance 3 over the words"

    def more(a: str, b: str, column: str) -> dict[str, float]:
        return spread.mean(found[a][column] - found[b][column])

    default = "mix, guidance 3 over both (the default)"
    findings = [
        finding("with a mix: the family asked for is likelier at guidance 3 over the words than "
                "without words", more(words, no_words, "family")),
        finding("with a mix: the family asked for is likelier with words and no guidance than "
                "without words", more("mix, no guidance (1)", no_words, "family")),
        finding("with a mix: guidance 8 over the words makes it likelier than 3",
                more("mix, guidance 8 over the words", words, "family")),
        finding("words alone make the family likelier than words with a mix, guidance 3 over both",
                more("words alone, guidance 3", default, "family")),
        finding("words alone: guidance 3 makes it likelier than none at all (0)",
                more("words alone, guidance 3", "words alone, guidance 0", "family")),
        finding("with a mix: the stem asked for is likelier with words than without",
                more(words, no_words, "stem")),
        finding("guidance 3 over the mix keeps more onsets on its beat than the words alone",
                more("mix, guidance 3 over the mix", "words alone, guidance 1", "onsets")),
        finding("guidance 8 over the mix makes the family asked for less likely than 1",
                more("mix, no guidance (1)", "mix, guidance 8 over the mix", "family")),
        finding("guidance 8 over the words takes onsets off the mix's beat, beside 1",
                more("mix, no guidance (1)", "mix, guidance 8 over the words", "onsets")),
    ]  # fmt: skip
    names = [name for name in found if "guidance" in name]
    return {
        "n": len(own),
        "n_songs": spread.n_songs,
        "settings": {"seconds a window": own[0].duration_s, "targets": list(TARGETS),
                     "classifier on real stems": _accuracy(classifier.results)},
        "tables": [table(
            "probabilities by the classifier; the family asked for is another song's, the mix's "
            "own family is what the context might tell",
            ["", "the stem asked for", "the family asked for", "the mix's own family",
             "onset alignment"], rows)],
        "findings": findings,
        "panels": [
            panel(title, unit, [(n, _kind(n), spread.mean(found[n][column])) for n in names])
            for title, unit, column in (
                ("the family asked for", "probability", "family"),
                ("on the mix's beat", "onset alignment", "onsets"),
            )
        ],
    }  # fmt: skip


def _asked(own: Sequence[Example], families: Sequence[str]) -> list[Example]:
    """The same windows, each with the family of another song in its words."""
    rows = []
    for e, others in zip(own, other_songs(own, count=len(own)), strict=True):
        mine = find_words(e.description, (), families)[1]
        lent = (own[i].family for i in others if find_words(own[i].family, (), families)[1] != mine)
        family = next(lent, None)
        if family is None:
            raise Missing(f"no song of another family than {mine} among the windows; take more")
        rows.append(dataclasses.replace(e, description=f"{e.target_name}, {family}"))
    return rows


def _hear(
    studio: Studio,
    name: str,
    clips: Sequence[Clip],
    asked: Sequence[Example],
    own: Sequence[Example],
    measures: Sequence[Measure],
) -> dict[str, np.ndarray]:
    heard = studio.heard(name, clips, asked, measures)
    of_own = studio.heard(f"{name}, own words", clips, own, measures[:1])
    return {
        "stem": np.array([_value(x["text"], 0) for x in heard]),
        "family": np.array([_value(x["text"], 1) for x in heard]),
        "own family": np.array([_value(x["text"], 1) for x in of_own]),
        "onsets": np.array([
            onset_alignment_of_times(e.beat_times, x["onsets"], e.duration_s)
            for e, x in zip(own, heard, strict=True)
        ]),
    }  # fmt: skip


def _value(found: Any, place: int) -> float:
    """NaN where the classifier knows none of the words."""
    value = found[place] if isinstance(found, list) else None
    return float("nan") if value is None else value


def _kind(name: str) -> str:
    if "floor" in name:
        return "floor"
    return "other" if "alone" in name else "right" if "words" in name else "context"


def _accuracy(results: dict) -> dict[str, float]:
    return {
        name: round(results[name]["value"], 2) for name in ("stem", "family") if name in results
    }
