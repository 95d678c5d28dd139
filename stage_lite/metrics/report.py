"""`sl.evaluate`: a model next to its ceiling and its floor, in one table, one figure, one page.

    table = sl.evaluate(model, dataset, n=64, seed=0, out="report")
    table.loc["beat_f1"]

A score alone says nothing: here each stands beside what the real stem gets, what the same model
does with another song's context and with none, and what a copied loop gets. See `systems` for the
six rows, `METRICS` for the columns' meanings, and the files of each metric for what it cannot hear.

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..errors import StageLiteError
from ..examples import Example
from ..result_store import ResultStore
from .agreement import onset_agreement_of_times
from .beats import beat_f1_of_times, onset_alignment_of_times
from .bootstrap import Bootstrap, paired_test
from .continuity import continuity_of_times
from .embeddings import embedding as embedding_by_name
from .listen import (
    NOT_A_MIX,
    Item,
    Listener,
    Measure,
    beats_measure,
    chroma_measure,
    coherence_measure,
    embedding_measure,
    onsets_measure,
    text_measure,
)
from .set_scores import DISTANCES, set_distance
from .sounds import Sounds
from .systems import ANOTHER, GENERATED, REAL, SHUFFLED, SYSTEMS, Sampling, Systems
from .tempo import tempo_error_of_times
from .trackers import AnyTracker, get_tracker
from .windows import Windows, draw_windows

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..model import StageModel

MEL_BANDS = 16  # d = 32: FAD wants several times as many windows as dimensions
AT_ONCE = 4  # windows whose stems are in memory together
PLUG_INS = ("clap", "vggish", "panns")  # embeddings that may not be there
COLUMNS = ("value", "low", "high", "n", "n_songs", "better", "p", "unit")


@dataclass(frozen=True)
class Metric:
    """A row of the report.

    Attributes:
        label: in figure and page.
        unit: of the value.
        better: "higher" or "lower".
        measure: what has to be heard for it; None for the distances between sets, which need the
            embedding.
        score: (example, what the measure found, onsets of the mix) -> number; StageLiteError or
            None where a window has none.
    """

    label: str
    unit: str
    better: str
    measure: str
    score: Callable[[Example, Any, Any], float | None] | None = None


METRICS: dict[str, Metric] = {
    "beat_f1": Metric(
        "beat F1", "0 to 1", "higher", "beats",
        lambda e, beats, _: beat_f1_of_times(e.beat_times, beats),
    ),
    "onset_alignment": Metric(
        "onset alignment", "0 is chance", "higher", "onsets",
        lambda e, onsets, _: onset_alignment_of_times(e.beat_times, onsets, e.duration_s),
    ),
    "tempo_error": Metric(
        "tempo error", "%", "lower", "beats",
        lambda e, beats, _: abs(tempo_error_of_times(e.beat_times, beats).octave_percent),
    ),
    "cml_t": Metric(
        "continuity, right level (CMLt)", "0 to 1", "higher", "beats",
        lambda e, beats, _: continuity_of_times(e.beat_times, beats).cmlt,
    ),
    "aml_t": Metric(
        "continuity, any level (AMLt)", "0 to 1", "higher", "beats",
        lambda e, beats, _: continuity_of_times(e.beat_times, beats).amlt,
    ),
    "onset_agreement": Metric(
        "onsets on the mix's", "0 is chance", "higher", "onsets",
        lambda e, onsets, mix: _onset_agreement(e, onsets, mix),
    ),
    "chroma_agreement": Metric(
        "chroma agreement", "0 is chance", "higher", "chroma", lambda e, value, _: value
    ),
    "coherence": Metric(
        "coherence (model)", "0 wrong, 1 right", "higher", "coherence", lambda e, value, _: value
    ),
    "text_stem": Metric(
        "text: the stem", "probability", "higher", "text", lambda e, values, _: values[0]
    ),
    "text_family": Metric(
        "text: the family", "probability", "higher", "text", lambda e, values, _: values[1]
    ),
    "fad_biased": Metric("FAD, biased", "distance²", "lower", "embedding"),
    "fad_unbiased": Metric("FAD, unbiased", "distance²", "lower", "embedding"),
    "kad_biased": Metric("KAD, biased", "MMD²", "lower", "embedding"),
    "kad_unbiased": Metric("KAD, unbiased", "MMD²", "lower", "embedding"),
}  # fmt: skip


def evaluate(
    model: StageModel,
    dataset: Sequence,
    *,
    n: int = 64,
    seed: int = 0,
    cfg_coef: float = 3.0,
    temperature: float = 1.0,
    top_k: int = 250,
    metrics: Sequence[str] | None = None,
    tracker: AnyTracker = "librosa",
    embedding: str | Callable = "log-mel",
    out: str | Path | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> DataFrame:
    """How well a model plays along, next to ceiling, floor and baseline, with 95 % intervals.

    The rows are the systems of `systems.SYSTEMS`. FAD and KAD compare each of them with a reference
    of up to n FURTHER real windows of the data set, none of which is evaluated or overlaps with a
    window that is (of the same songs, if the data set has no others); so "real" is not 0 there, and
    "another song's stem", the same stems in another order, scores as "real" does.

    A metric that fails or is not there is a gap: NaN, and its reason in
    `table.attrs["missing"]`, printed and shown on the page. The other metrics still come out.

    Args:
        model: with a context token. One without would play the same with every context: "nano-base"
            is an error, and the row "no context" of "nano" shows what words alone do.
        dataset: windows with contexts, of at least two songs: StemDataset, ShardDataset, or a list
            of Example of one length. Coherence with the mix is measured where the context is one,
            not where it is a click ("metronome").
        n: windows to evaluate. Silent stems, windows with fewer than four beats and those without a
            context are passed over, and counted in `attrs["left_out"]`; of no song more than half
            are taken.
        seed: of the choice of windows and of the noise, which is the same for the model's three
            rows.
        cfg_coef, temperature, top_k: as in `model.generate`.
        metrics: names of `METRICS`; None is all of them.
        tracker: of beats, a name or a function; see `trackers`.
        embedding: for FAD and KAD: a name of `embeddings.embedding` ("log-mel" here with 16 bands,
            d = 32, which 64 windows are enough for) or a function (wavs, sample_rate) -> [n, d].
        out: folder that gets report.json, report.html (with the figure inside) and report.png.
        cache_dir: folder that keeps all results by the hash of what they were made from, so that
            after Ctrl-C nothing is done twice; what a function of yours found is not kept. None
            keeps nothing.
        batch_size: windows that are generated at once.
        progress: bars.

    Returns:
        A pandas table with the index (metric, system) and the columns
        - value, low, high: the mean over windows, with a bootstrap interval over songs; for FAD and
          KAD the distance, with a jackknife interval over songs;
        - n, n_songs: windows and songs that have a value;
        - better: "higher" or "lower"; unit;
        - p: of a paired test over songs (`bootstrap.paired_test`) against "shuffled context"; NaN
          where windows are not paired. Of twenty tests one is below 0.05 by chance.
        `attrs` hold the settings, "missing", "left_out", and "gap_closed": metric -> value, low and
        high of (generated - shuffled context) / (real - another song's stem): 0 for a model that
        does not listen, 1 for one that plays as the real one does; NaN where the real stems do not
        differ from another song's beyond chance, so that there is no gap.

    Raises:
        StageLiteError: no StageModel, n below 2, an empty data set, one of fewer than n windows, of
            one song, without contexts, of mixed sample rates or lengths, codes of another codec, a
            model without context token, an unknown metric, tracker or embedding, an `out` that is a
            file or cannot be made.
    """
    sampling = Sampling(cfg_coef, temperature, top_k)
    names = _metric_names(metrics)
    _check_options(model, batch_size, out)
    measures, missing, listened_with = _measures(names, model, tracker, embedding)
    if not measures:
        raise StageLiteError(f"nothing can be measured: {missing}; ask for other metrics")
    store = ResultStore(cache_dir, "bar" if progress else "none")
    sounds = Sounds(model)
    systems = Systems(model, sounds, store, sampling, seed, batch_size)
    n_reference = n if "embedding" in measures else 0
    windows = draw_windows(dataset, n, seed, systems.is_silent, n_reference)
    contexts = [systems.context(e) for e in windows.examples]
    clips = systems.make(windows, contexts)
    reference = [Item(systems.real(e), None, e) for e in windows.reference]

    listener = Listener(sounds, store)
    items = {
        name: [
            None if clip is None else Item(clip, mix, e)
            for clip, mix, e in zip(column, contexts, windows.examples, strict=True)
        ]
        for name, column in clips.items()
    }
    mixes = [Item(mix, None, e) for mix, e in zip(contexts, windows.examples, strict=True)]
    _listen(listener, items, mixes, reference, measures, names, progress)

    missing |= {m: listener.failed[METRICS[m].measure] for m in names
                if METRICS[m].measure in listener.failed}  # fmt: skip
    scores, reasons = _scores(listener, measures, items, mixes, names)
    missing |= {m: reason for m, reason in reasons.items() if m not in missing}
    if all(clip is None for clip in clips["loop"]):
        missing["loop"] = (
            "no bar of another song could be looped: fewer than two downbeats in all windows; take "
            "longer windows, or a data set with downbeats"
        )
    rows = _window_rows(scores, windows)
    distances, reasons = _set_rows(listener, measures, items, reference, names, seed)
    missing |= {m: reason for m, reason in reasons.items() if m not in missing}
    table = _table(names, rows | distances)
    first = windows.examples[0]
    table.attrs = {
        "model": model.config.name,
        "n": len(windows.examples),
        "n_songs": len(set(windows.song_ids)),
        "n_reference": len(windows.reference),
        "seed": seed,
        "window_s": first.duration_s,
        "targets": sorted({e.target_name for e in windows.examples}),
        "conditions": sorted({e.condition for e in windows.examples}),
        "cfg_coef": cfg_coef,
        "settings": {**asdict(sampling), **listened_with},
        "real_is": "decoded codes" if first.target is None else "audio of the data set",
        "left_out": windows.left_out,
        "gap_closed": _gap_closed(scores, windows),
        "missing": {m: missing[m] for m in [*names, "loop"] if m in missing},
    }
    together: dict[str, list[str]] = {}
    for metric, reason in table.attrs["missing"].items():
        together.setdefault(reason, []).append(metric)
    for reason, lost in together.items():
        print(f"not measured: {', '.join(lost)}: {reason}")
    if out is not None:
        from .report_page import write_report

        write_report(table, windows.examples, scores, out)
    return table


# --- what is asked for ---------------------------------------------------------------------------


def _metric_names(metrics: Sequence[str] | None) -> list[str]:
    if metrics is None:
        return list(METRICS)
    asked = [metrics] if isinstance(metrics, str) else list(metrics)
    wrong = [name for name in asked if name not in METRICS]
    if wrong or not asked:
        raise StageLiteError(
            f"metrics is {metrics!r}; expected some of {', '.join(METRICS)}, or None for all"
        )
    return [name for name in METRICS if name in asked]


def _check_options(model: StageModel, batch_size: int, out: str | Path | None) -> None:
    if not hasattr(model, "check_context_token"):
        raise StageLiteError(
            f"model is {model!r:.80}; expected a StageModel, as stage_lite.load('nano') gives"
        )
    model.check_context_token()
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise StageLiteError(f"batch_size is {batch_size!r}; expected a whole number from 1")
    if out is None:
        return
    if Path(out).exists() and not Path(out).is_dir():
        raise StageLiteError(f"{out} is a file; expected a folder for the report")
    try:  # now, and not after minutes of work
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageLiteError(
            f"{out} cannot be made ({error.strerror}); expected a folder for the report; choose "
            "another place"
        ) from None


def _measures(
    names: Sequence[str], model: StageModel, tracker: AnyTracker, embedding: str | Callable
) -> tuple[dict[str, Measure], dict[str, str], dict[str, str]]:
    """Measures that the metrics need, metric -> why there is none, and what listens."""
    makers = {
        "beats": lambda: _beats(tracker),
        "onsets": onsets_measure,
        "chroma": chroma_measure,
        "coherence": _coherence,
        "text": _text,
        "embedding": lambda: _embedding(embedding, model),
    }
    if not callable(tracker) and tracker != "beat-this":
        get_tracker(tracker)  # an unknown name is a slip, not a missing package
    if not callable(embedding) and embedding not in PLUG_INS:
        _embedding(embedding, model)
    measures, missing = {}, {}
    for name, make in makers.items():
        metrics = [m for m in names if METRICS[m].measure == name]
        if not metrics:
            continue
        try:
            measures[name] = make()
        except (StageLiteError, ImportError) as error:
            missing |= dict.fromkeys(metrics, str(error))
    listened_with = {
        "tracker": _name(tracker or "librosa"),
        "embedding": f"log-mel, {MEL_BANDS} bands" if embedding == "log-mel" else _name(embedding),
    }
    return measures, missing, listened_with


def _beats(tracker: AnyTracker) -> Measure:
    return beats_measure(get_tracker(tracker), None if callable(tracker) else tracker or "librosa")


def _coherence() -> Measure:
    from .coherence import load_coherence

    return coherence_measure(load_coherence())


def _text() -> Measure:
    from .text import load_text_classifier

    return text_measure(load_text_classifier())


def _embedding(embedding: str | Callable, model: StageModel) -> Measure:
    if callable(embedding):
        return embedding_measure(embedding, None)
    options: dict[str, Any] = {}
    version: list = [embedding]
    if embedding == "log-mel":
        options["n_mels"] = MEL_BANDS
        version.append(MEL_BANDS)
    elif embedding == "codec":
        from ..result_store import fingerprint

        options["model"] = model
        version.append(fingerprint(model.codec))
    return embedding_measure(embedding_by_name(embedding, **options), version)


def _name(choice: Any) -> str:
    return choice if isinstance(choice, str) else getattr(choice, "__name__", type(choice).__name__)


# --- listening and scoring -----------------------------------------------------------------------


def _listen(
    listener: Listener,
    items: dict[str, list[Item | None]],
    mixes: list[Item],
    reference: list[Item],
    measures: dict[str, Measure],
    names: Sequence[str],
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    # Window after window, so that the stems of one window share its mix.
    window_by_window = [item for row in zip(*items.values(), strict=True) for item in row if item]
    of_mixes = [measures["onsets"]] if "onset_agreement" in names else []
    of_reference = [measures["embedding"]] if "embedding" in measures else []
    jobs = (
        (window_by_window, list(measures.values())),
        (mixes if of_mixes else [], of_mixes),
        (reference, of_reference),
    )
    with tqdm(
        total=sum(len(rows) for rows, _ in jobs), desc="listening", disable=not progress
    ) as bar:
        for rows, wanted in jobs:
            listener.listen(rows, wanted, AT_ONCE * len(items), bar)


def _scores(
    listener: Listener,
    measures: dict[str, Measure],
    items: dict[str, list[Item | None]],
    mixes: list[Item],
    names: Sequence[str],
) -> tuple[dict[str, dict[str, Float[ndarray, "n"]]], dict[str, str]]:
    """Metric -> system -> one score per window, NaN for none; metric -> why all are NaN."""
    scores: dict[str, dict[str, ndarray]] = {}
    reasons: dict[str, str] = {}
    for name in names:
        metric = METRICS[name]
        if metric.score is None or metric.measure not in measures:
            continue
        measure, why = measures[metric.measure], ""
        scores[name] = {}
        for system, row in items.items():
            column = np.full(len(row), np.nan)
            for i, (item, mix) in enumerate(zip(row, mixes, strict=True)):
                found = None if item is None else listener(measure, item)
                if found is None:
                    continue
                if isinstance(found, dict):
                    why = found["unknown"]
                    continue
                of_mix = listener(measure, mix) if name == "onset_agreement" else None
                try:
                    value = metric.score(item.example, found, of_mix)
                except StageLiteError as error:
                    why = str(error)
                    continue
                column[i] = np.nan if value is None else value
            scores[name][system] = column
        if all(np.isnan(column).all() for column in scores[name].values()):
            reasons[name] = why or _why_nowhere(name, measure)
    return scores, reasons


def _why_nowhere(name: str, measure: Measure) -> str:
    if name in ("text_stem", "text_family"):
        return "no description names one that the classifier knows"
    if measure.of_mix or name == "onset_agreement":
        pitched = "a pitched target and " if measure.pitched else ""
        return (
            f"no window has {pitched}a mix as its context; it takes a condition such as 'mixture' "
            "or 'backing', not a click"
        )
    return "no window has a value"


def _onset_agreement(
    example: Example, onsets: Sequence[float], mix_onsets: Sequence[float]
) -> float | None:
    """Over the part of the window that has a context."""
    if example.condition in NOT_A_MIX:
        return None
    if example.context is not None:
        length_s = example.context.shape[-1] / example.sample_rate
    else:
        length_s = example.duration_s * (
            example.context_codes.shape[-1] / example.target_codes.shape[-1]
        )
    length_s = min(length_s, example.duration_s)
    return onset_agreement_of_times(mix_onsets, [t for t in onsets if t < length_s], length_s)


# --- numbers -------------------------------------------------------------------------------------


def _window_rows(
    scores: dict[str, dict[str, ndarray]], windows: Windows
) -> dict[tuple[str, str], dict[str, float]]:
    songs = np.array(windows.song_ids)
    spread = Bootstrap(songs)
    rows = {}
    for metric, columns in scores.items():
        for system, column in columns.items():
            known = ~np.isnan(column)
            rows[metric, system] = spread.mean(column) | {
                "n": int(known.sum()),
                "n_songs": len(np.unique(songs[known])),
                "p": _p(column, columns[SHUFFLED], songs) if system != SHUFFLED else np.nan,
            }
    return rows


def _p(column: ndarray, floor: ndarray, songs: ndarray) -> float:
    try:
        return paired_test(column, floor, songs)
    except StageLiteError:  # fewer than two songs with both
        return np.nan


def _set_rows(
    listener: Listener,
    measures: dict[str, Measure],
    items: dict[str, list[Item | None]],
    reference: list[Item],
    names: Sequence[str],
    seed: int,
) -> tuple[dict[tuple[str, str], dict[str, float]], dict[str, str]]:
    rows: dict[tuple[str, str], dict[str, float]] = {}
    reasons: dict[str, str] = {}
    wanted = [name for name in names if name in DISTANCES]
    if "embedding" not in measures or "embedding" in listener.failed or not wanted:
        return rows, reasons
    if len(reference) < 2:
        reason = (
            f"the data set has {len(reference)} windows that do not overlap with those evaluated; "
            "expected at least two for the reference; take a longer data set or a smaller n"
        )
        return rows, dict.fromkeys(wanted, reason)
    found = {
        system: [
            (row, item.example.song_id)
            for item in column
            if item is not None
            for row in listener(measures["embedding"], item)
        ]
        for system, column in {"reference": reference, **items}.items()
    }
    sizes = {len(row) for pairs in found.values() for row, _ in pairs}
    if len(sizes) > 1:
        reason = (
            f"the embedding gave rows of {min(sizes)} to {max(sizes)} dimensions; expected one "
            "number of dimensions for all clips; take the mean over time of each clip"
        )
        return rows, dict.fromkeys(wanted, reason)
    real = np.array([row for row, _ in found.pop("reference")])
    for metric in wanted:
        try:
            for system, pairs in found.items():
                if pairs:
                    songs = [song for _, song in pairs]
                    rows[metric, system] = set_distance(
                        metric, real, np.array([row for row, _ in pairs]), songs, seed
                    ) | {"n": len(pairs), "n_songs": len(set(songs)), "p": np.nan}
        except StageLiteError as error:
            reasons[metric] = str(error)
            for system in found:
                rows.pop((metric, system), None)
    return rows, reasons


def _gap_closed(
    scores: dict[str, dict[str, ndarray]], windows: Windows
) -> dict[str, dict[str, float]]:
    spread = Bootstrap(windows.song_ids)
    found = {}
    for metric, columns in scores.items():
        four = np.stack([columns[name] for name in (GENERATED, SHUFFLED, REAL, ANOTHER)])
        four[:, np.isnan(four).any(axis=0)] = np.nan  # the same windows for all
        gap = spread.mean(four[2] - four[3])
        if gap["low"] > 0 or gap["high"] < 0:
            found[metric] = spread.of(lambda a, b, c, d: (a - b) / (c - d), *four)
        else:
            found[metric] = dict.fromkeys(("value", "low", "high"), np.nan)
    return found


def _table(names: Sequence[str], rows: dict[tuple[str, str], dict[str, float]]) -> DataFrame:
    import pandas as pd

    nothing = {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0, "n_songs": 0, "p": np.nan}
    index = pd.MultiIndex.from_product([names, SYSTEMS], names=["metric", "system"])
    content = [
        {**nothing, **rows.get((metric, system), {}), "better": METRICS[metric].better,
         "unit": METRICS[metric].unit}
        for metric, system in index
    ]  # fmt: skip
    return pd.DataFrame(content, index=index)[list(COLUMNS)]
