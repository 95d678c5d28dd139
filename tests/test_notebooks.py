"""Notebooks are what their sources say, hold no outputs, and keep to the house's form."""

import ast
import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
STUDENT = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTION = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
SOURCES = sorted((ROOT / "notebooks" / "src").glob("*.py"))
LESSONS = [file for file in STUDENT if not file.stem.endswith("_template")]
each = pytest.mark.parametrize("file", LESSONS, ids=lambda f: f.stem)
solved = pytest.mark.parametrize("file", SOLUTION, ids=lambda f: f.stem)
both = pytest.mark.parametrize(
    "file", [*STUDENT, *SOLUTION], ids=lambda f: f"{f.stem}-{f.parent.name}"
)
CHECK = re.compile(r"checks\.(\w+)\((\w+)\)")


def builder():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(file):
    return [cell for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_notebooks_are_what_their_source_says(source):
    for name, text in builder().notebooks_of(source).items():
        assert text == (ROOT / "notebooks" / name).read_text(encoding="utf-8"), (
            "run: python notebooks/build.py"
        )


def test_every_notebook_has_a_source():
    names = [file.stem for file in SOURCES]
    assert [file.stem for file in STUDENT] == [file.stem for file in SOLUTION] == names


EXERCISE = '''# %%
SEED = 0

# %%
print("a")
print(" b")
# > a
# >  b


# %%
def double(x: int) -> int:
    """Twice.

    Returns:
        2 x.
    """
    ### BEGIN SOLUTION
    y = x + x  # twice

    return y
    ### END SOLUTION


# %%
checks.double(double)

# %% [markdown]
# <details><summary>Hint</summary>Add.</details>

# %%
double(1)
'''


def build_in(folder, monkeypatch, source, *options):
    """Run build.py on one source in a folder of its own; its exit code."""
    build = builder()
    monkeypatch.setattr(build, "HERE", folder)
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "a.py").write_text(source)
    monkeypatch.setattr(sys, "argv", ["build.py", *options])
    return build.main()


def test_check_finds_a_stale_notebook(tmp_path, monkeypatch, capsys):
    source = "# %%\nx = 1\n\n# %%\nx = 1\n"
    assert build_in(tmp_path, monkeypatch, source, "--check") == 1
    assert "not what their sources say: a.ipynb, solutions/a.ipynb" in capsys.readouterr().out
    assert not (tmp_path / "a.ipynb").exists()
    assert build_in(tmp_path, monkeypatch, source) == 0
    first = (tmp_path / "a.ipynb").read_text()
    assert len({cell.id for cell in nbformat.reads(first, 4).cells}) == 2
    assert build_in(tmp_path, monkeypatch, source, "--check") == 0
    (tmp_path / "solutions" / "old.ipynb").write_text(first)
    assert build_in(tmp_path, monkeypatch, source, "--check") == 1
    assert "without a source: old.ipynb" in capsys.readouterr().out


def test_one_source_gives_stub_and_solution(tmp_path, monkeypatch):
    assert build_in(tmp_path, monkeypatch, EXERCISE) == 0
    cells = nbformat.read(tmp_path / "a.ipynb", 4).cells
    stub, check, text, after = cells[2:]
    assert stub.source.endswith('    """\n    raise NotImplementedError')
    assert tags(check) == ["raises-exception"] and tags(after) == ["nbval-skip"]
    assert text.source.endswith(
        "<details><summary>Solution</summary>\n\n```python\ndef double(x: int) -> int:\n"
        "    y = x + x  # twice\n\n    return y\n```\n</details>"
    )
    cells = nbformat.read(tmp_path / "solutions" / "a.ipynb", 4).cells
    function, check, text, after = cells[2:]
    assert "    # BEGIN SOLUTION\n    y = x + x" in function.source
    assert function.source.endswith("    # END SOLUTION") and "Solution" not in text.source
    assert function.metadata.nbgrader.solution and not function.metadata.nbgrader.grade
    assert check.metadata.nbgrader.grade and check.metadata.nbgrader.points == 1
    assert not tags(check) and not tags(after)


def test_what_a_cell_prints_is_kept_and_compared(tmp_path, monkeypatch):
    build_in(tmp_path, monkeypatch, EXERCISE)
    cell = nbformat.read(tmp_path / "solutions" / "a.ipynb", 4).cells[1]
    assert cell.source == 'print("a")\nprint(" b")' and tags(cell) == ["nbval-check-output"]
    assert [output.text for output in cell.outputs] == ["a\n b\n"]


@both
def test_no_outputs_but_those_that_are_compared(file):
    notebook = nbformat.read(file, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compared = "nbval-check-output" in tags(cell)
            assert len(cell.outputs) == compared
            assert cell.execution_count == (1 if compared else None)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no widget state, no pairing"
    assert notebook.metadata.kernelspec.name == "python3"
    assert file.stat().st_size < 100_000


@both
def test_exercises(file):
    """Stub or solution, the check alone in its cell, and nothing later that needs a solution."""
    student = file.parent.name != "solutions"
    cells = code_cells(file)
    names, skip = [], False
    for above, cell in itertools.pairwise(cells):
        called = CHECK.fullmatch(cell.source)
        assert ("nbval-skip" in tags(cell)) == (student and skip)
        if called:
            name, skip = called[1], True
            assert called[2] == name and f"def {name}(" in above.source
            assert ("raises-exception" in tags(cell)) == student
            assert above.source.endswith("    raise NotImplementedError") == student
            assert ("    # BEGIN SOLUTION\n" in above.source) == (not student)
            names.append(name)
            continue
        for name in names:  # who has not solved it goes on all the same
            if re.search(rf"\b{name}\(", cell.source) and f"def {name}(" not in cell.source:
                assert f"if checks.passed({name}):" in cell.source
    assert bool(names) != file.stem.endswith("_template")


@each
def test_exercises_say_how_hard_they_are(file):
    text = "\n".join(c.source for c in nbformat.read(file, 4).cells if c.cell_type == "markdown")
    n = len([c for c in code_cells(file) if CHECK.fullmatch(c.source)])
    assert len(re.findall(r"[★☆]{3} · \d+ minutes", text)) >= min(n, 4)
    assert text.count("<summary>Hint 1") == text.count("<summary>Hint 2") == n
    assert text.count("<summary>Solution</summary>") == n
    promise = re.search(r"Computing: at most (\d+)\s+s", text)
    longest_s = 240 if file.stem == "04_fine_tuning" else 75  # that one is there to train
    assert promise and int(promise[1]) <= longest_s
    assert re.search(r"Reading and listening: \d+\s+minutes", text)
    assert re.search(r"Exercises?:\s+\d+\s+minutes", text)


@each
def test_form(file):
    """style.md: sizes of notebook and cells, one set-up cell, seeds, predictions, recall."""
    cells = nbformat.read(file, 4).cells
    code = [c.source for c in cells if c.cell_type == "code"]
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    words = re.findall(r"\w+", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for source in code for line in source.splitlines() if line.strip()]
    assert 25 <= len(cells) <= 45
    assert 900 <= len(words) <= 1800
    assert 100 <= len(lines) <= 200
    assert max(len(source.splitlines()) for source in code[1:]) <= 25
    assert len(code[0].splitlines()) <= 30  # the set-up cell
    assert "SEED" in code[0] and "import stage_lite" in code[0]
    assert not any(re.search(r"^import|^from", s, re.M) for s in code[1:])
    assert text.count("**Predict.**") >= 3
    for heading in ("## Exercise", "## What could be wrong", "## Words", "## Sources"):
        assert heading in text
    for source in code:
        ast.parse(source)


@pytest.mark.parametrize("file", sorted({*STUDENT} - {*LESSONS}), ids=lambda f: f.stem)
def test_a_template_is_a_rehearsal_with_one_cell_to_change(file):
    """It comes quick and says so, and only the cell of the idea defines something."""
    code = [cell.source for cell in code_cells(file)]
    text = "\n".join(c.source for c in nbformat.read(file, 4).cells if c.cell_type == "markdown")
    assert re.search(r"^QUICK = True", code[0], re.M) and "SEED = 0" in code[0]
    assert "`QUICK = True`" in text and re.search(r"Computing[^.]+about \d+ minutes", text)
    assert sum("@sl.condition(" in source or "\ndef " in source for source in code) == 1
    assert sum("if QUICK else" in source for source in code) >= 2
    assert not any(re.search(r"^import|^from", source, re.M) for source in code[1:])
    assert max(len(source.splitlines()) for source in code) <= 35 and len(code) >= 8


@pytest.mark.parametrize("file", STUDENT, ids=lambda f: f.stem)
def test_every_clip_says_what_to_listen_for(file):
    """A clip has a name, audio and what to listen for; a Clip its sample rate too."""
    for cell in nbformat.read(file, 4).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            expected = {"clip": 3, "Clip": 4}.get(getattr(getattr(node, "func", 0), "id", ""))
            if isinstance(node, ast.Call) and expected:
                assert len(node.args) == expected, ast.unparse(node)
            assert getattr(getattr(node, "func", None), "attr", "") not in ("play", "Audio")


def table_rows(text):
    """First cell and all cells of each row of the tables in a text."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")]
            for line in text.splitlines() if line.startswith("| ")]  # fmt: skip
    return [(row[0], row) for row in rows if row[0] not in ("word", "term", "---")]


def test_glossary_knows_the_words_of_the_notebooks():
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = {word.strip() for term, _ in table_rows(text) for word in term.split(",")}
    for term, row in table_rows(text):
        assert len(row) == 5 and row[1], term
        path = re.fullmatch(r"`([\w/.]+)`", row[4])
        assert path and (ROOT / path[1]).exists(), f"{term}: {row[4]}"
    for file in LESSONS:
        cells = [c.source for c in nbformat.read(file, 4).cells if c.cell_type == "markdown"]
        (words,) = [source for source in cells if "## Words of this notebook" in source]
        used = {word.strip() for term, _ in table_rows(words) for word in term.split(",")}
        assert used and not used - terms, f"{file.stem}: {sorted(used - terms)}"


def test_rehearsal_changes_seed_and_doubles_cells():
    spec = importlib.util.spec_from_file_location("rehearse", ROOT / "notebooks" / "rehearse.py")
    rehearse = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rehearse)
    notebook = rehearse.rehearsed(nbformat.read(SOLUTION[0], 4), seed=5, twice=True)
    nbformat.validate(notebook)
    *cells, usage = [cell.source for cell in notebook.cells]
    assert cells[::2] == cells[1::2] and "SEED = 5\n" in cells[0] and "peak_mb" in usage


def test_the_script_runs_as_one(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "notebooks" / "build.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
