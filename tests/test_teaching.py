"""docs/teaching.md tells teachers what the notebooks say, and numbers that were measured."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
PAGE = ROOT / "docs" / "teaching.md"
LESSONS = sorted(f for f in (ROOT / "notebooks").glob("*.ipynb") if "template" not in f.stem)


def measure():
    sys.path.insert(0, str(ROOT / "notebooks"))
    spec = importlib.util.spec_from_file_location("measure", ROOT / "notebooks" / "measure.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


@pytest.mark.parametrize("file", LESSONS, ids=lambda f: f.stem)
def test_minutes_are_those_of_the_notebook(file):
    first = " ".join(nbformat.read(file, 4).cells[0].source.split())
    reading, exercises = (
        re.search(rf"{word}: (\d+) minutes", first)[1]
        for word in ("Reading and listening", "Exercises?")
    )
    lines = PAGE.read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| {file.stem[:2]} "))
    assert [cell.strip() for cell in row.split("|")[4:6]] == [f"{reading} min", f"{exercises} min"]


def test_sections_that_the_plans_name_are_there():
    text = PAGE.read_text()
    plans = text[text.index("## Three plans") : text.index("## Grading")]
    named = re.findall(r"(0\d)[,:](?: [^|;0]*?)? ?\(?sections? (\d)(?: (?:to|and) (\d))?", plans)
    assert len(named) > 5
    for number, *sections in named:
        (file,) = (f for f in LESSONS if f.stem.startswith(number))
        heads = "\n".join(cell.source for cell in nbformat.read(file, 4).cells)
        for section in filter(None, sections):
            assert re.search(rf"^## {section}\. ", heads, re.M), f"{file.stem} has no {section}"


def test_the_table_is_what_was_measured_for_every_notebook():
    module = measure()
    measured = json.loads(module.KEPT.read_text())
    assert sorted(measured) == sorted(f.stem for f in (ROOT / "notebooks").glob("*.ipynb"))
    assert module.table(measured) in PAGE.read_text(), "run: python notebooks/measure.py --table"
    tried = [one["together"] for one in measured.values() if "together" in one]
    assert tried and all(one["kernels"] >= 8 for one in tried)


def test_students_that_a_machine_holds():
    module = measure()
    assert module.students(each_mb=924.0, memory_gb=24.0) == 22  # 22 GB / (924 + 100) MB
    assert module.students(each_mb=925.0, memory_gb=24.0) == 21


def test_a_page_without_marks_is_left_alone(tmp_path, monkeypatch):
    module = measure()
    (tmp_path / "page.md").write_text("no table here")
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    with pytest.raises(SystemExit, match="put them where the table goes"):
        module.write_table({})
    assert (tmp_path / "page.md").read_text() == "no table here"
