"""Answers of a listening test as CSV: one row a page, written whole, read with every cell checked.

Columns of "pairs":   listener, trial, choice ("left" or "right"), seconds
Columns of "sheets":  listener, trial, slider_1, slider_2, ... (0 to 100, in the order of the
                      stimuli on the page), seconds
`seconds` is how long the page was open. Commas, UTF-8, a header; the trial id says which listener
it is of. One person writes a file at a time: give each listener a file of their own.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StageLiteError
from .files import write_atomic
from .listening_plan import Trial

if TYPE_CHECKING:
    from pandas import DataFrame

    from .listening_test import ListeningTest

SIDES = ("left", "right")
SLIDER = (0.0, 100.0)


def answer_columns(test: ListeningTest) -> list[str]:
    """Header of the CSV of a test."""
    if test.form == "pairs":
        return ["listener", "trial", "choice", "seconds"]
    sliders = [f"slider_{i}" for i in range(1, len(test.trials[0].stimuli) + 1)]
    return ["listener", "trial", *sliders, "seconds"]


def append_answer(
    file: str | Path,
    test: ListeningTest,
    trial: str,
    answer: str | Sequence[float],
    seconds: float,
) -> None:
    """Add one answer. The file is written anew as a whole: after a crash it has all but the last.

    Args:
        file: made when it is not there.
        test: with or without its key.
        trial: id of the page.
        answer: "left" or "right", or a number from 0 to 100 for each stimulus in order.
        seconds: that it took.

    Raises:
        StageLiteError: an answer that `read_answers` would refuse, or a second one to a page.
    """
    file = Path(file)
    cells = [answer] if isinstance(answer, str) else list(answer)
    listener = trial.partition("-")[0]
    row = [listener, trial, *(str(cell) for cell in cells), str(seconds)]
    columns = answer_columns(test)
    rows = _read_rows(file, columns) if file.exists() else []
    line = rows[-1][0] + 1 if rows else 2
    _check_rows(file, test, columns, [*rows, (line, row)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *(r for _, r in rows), row])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text.getvalue())


def unanswered(test: ListeningTest, listener: int, file: str | Path) -> list[Trial]:
    """The pages that a listener has still to answer, in order: where to go on after a pause."""
    file, columns = Path(file), answer_columns(test)
    done = set()
    if file.exists():
        rows = _read_rows(file, columns)
        _check_rows(file, test, columns, rows)
        done = {row[1] for _, row in rows}
    return [trial for trial in test.pages(listener) if trial.id not in done]


def read_answers(files: str | Path | Sequence[str | Path], test: ListeningTest) -> DataFrame:
    """All answers with what was heard.

    Args:
        files: a CSV file, a folder of them, or several files.
        test: with its key.

    Returns:
        "pairs": a row per page: listener, trial, item, left, right, choice, winner, loser, seconds.
        "sheets": a row per slider: listener, trial, item, system, rating, place (from 1), seconds.

    Raises:
        StageLiteError: names file, line and column: no file, an empty one, other columns, an
            unknown trial, one of another listener, one that was answered before, a choice or rating
            out of range, seconds below 0.
    """
    import pandas as pd

    if any(trial.item is None for trial in test.trials):
        raise StageLiteError(
            "the test was loaded without its key, so nobody knows what was heard; expected "
            "load_listening_test(folder), or key_file= where the key is kept"
        )
    columns = answer_columns(test)
    trials = {trial.id: trial for trial in test.trials}
    seen: dict[str, str] = {}
    table = []
    for file in _files(files):
        rows = _read_rows(file, columns)
        if not rows:
            raise StageLiteError(
                f"{file} has a header and no answers; expected at least one line; leave it out"
            )
        _check_rows(file, test, columns, rows, seen)
        for _, row in rows:
            trial, seconds = trials[row[1]], float(row[-1])
            head = {"listener": trial.listener, "trial": trial.id, "item": trial.item}
            if test.form == "pairs":
                left, right = trial.systems
                winner, loser = (left, right) if row[2] == "left" else (right, left)
                answer = {"left": left, "right": right, "choice": row[2]}
                outcome = {"winner": winner, "loser": loser, "seconds": seconds}
                table.append(head | answer | outcome)
            else:
                for place, (system, cell) in enumerate(
                    zip(trial.systems, row[2:-1], strict=True), start=1
                ):
                    answer = {"system": system, "rating": float(cell), "place": place}
                    table.append(head | answer | {"seconds": seconds})
    return pd.DataFrame(table)


def _files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(files, str | Path):
        folder = Path(files)
        files = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder]
        if not files:
            raise StageLiteError(f"{folder} holds no .csv file; expected the answers of listeners")
    if not files:
        raise StageLiteError("read_answers got no files; expected at least one CSV file")
    return [Path(file) for file in files]


def _read_rows(file: Path, columns: list[str]) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every answer; the header is checked, the cells are not."""
    if not file.is_file():
        raise StageLiteError(f"{file} is not there; expected a CSV file of answers")
    try:
        text = file.read_text(encoding="utf-8-sig")  # Excel puts a mark in front
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise StageLiteError(
            f"{file} is no CSV in UTF-8 ({error}); save it as CSV, UTF-8, with commas"
        ) from None
    if not rows:
        raise StageLiteError(f"{file} is empty; expected the header {','.join(columns)}")
    line, header = rows[0]
    if header != columns:
        semicolons = "; it has semicolons: save it with commas" if ";" in header[0] else ""
        raise StageLiteError(
            f"{file}, line {line}: the columns are {','.join(header)}; expected "
            f"{','.join(columns)}{semicolons}"
        )
    return rows[1:]


def _check_rows(
    file: Path,
    test: ListeningTest,
    columns: list[str],
    rows: list[tuple[int, list[str]]],
    seen: dict[str, str] | None = None,
) -> None:
    """Every cell; `seen` (trial -> where) is filled, so that several files are checked together."""
    trials = {trial.id: trial for trial in test.trials}
    seen = {} if seen is None else seen
    for line, row in rows:
        at = f"{file}, line {line}"
        if len(row) != len(columns):
            raise StageLiteError(
                f"{at} has {len(row)} cells; expected {len(columns)}: {','.join(columns)}"
            )
        cells = dict(zip(columns, row, strict=True))
        trial = trials.get(cells["trial"])
        if trial is None:
            raise StageLiteError(
                f"{at}, column trial: {cells['trial']!r} is no page of this test; expected ids "
                f"such as {test.trials[0].id!r}; are these the answers to another test?"
            )
        if cells["listener"] != str(trial.listener):
            raise StageLiteError(
                f"{at}, column listener: {cells['listener']!r}; expected {trial.listener}, to whom "
                f"trial {trial.id!r} belongs"
            )
        if trial.id in seen:
            raise StageLiteError(
                f"{at}, column trial: {trial.id!r} was answered before, in {seen[trial.id]}; "
                "expected one answer a page; take one of them out"
            )
        seen[trial.id] = at
        if test.form == "pairs":
            if cells["choice"] not in SIDES:
                raise StageLiteError(
                    f"{at}, column choice: {cells['choice']!r}; expected 'left' or 'right'"
                )
        else:
            for column in columns[2:-1]:
                _number(cells[column], *SLIDER, f"{at}, column {column}")
        _number(cells["seconds"], 0.0, math.inf, f"{at}, column seconds")


def _number(cell: str, low: float, high: float, at: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (low <= value <= high and math.isfinite(value)):
        wanted = f"from {low:g} to {high:g}" if math.isfinite(high) else f"from {low:g}"
        raise StageLiteError(f"{at}: {cell!r}; expected a number {wanted}, with a decimal point")
    return value
