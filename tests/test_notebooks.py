"""Notebooks are what their sources say, hold no outputs, and keep to the house's form."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)


def builder():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each
def test_notebook_is_what_its_source_says(file):
    source = file.parent / "src" / f"{file.stem}.py"
    assert builder().notebook_of(source) == file.read_text(), "run: python notebooks/build.py"


def test_check_finds_a_stale_notebook(tmp_path, monkeypatch, capsys):
    build = builder()
    monkeypatch.setattr(build, "HERE", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("# %%\nx = 1\n\n# %%\nx = 1\n")
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 1 and "a.ipynb" in capsys.readouterr().out
    assert not (tmp_path / "a.ipynb").exists()
    monkeypatch.setattr(sys, "argv", ["build.py"])
    assert build.main() == 0
    first = (tmp_path / "a.ipynb").read_text()
    assert len({cell.id for cell in nbformat.reads(first, 4).cells}) == 2
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 0


@each
def test_no_outputs_and_a_plain_kernel(file):
    notebook = nbformat.read(file, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
    assert file.stat().st_size < 100_000


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
    assert max(len(source.splitlines()) for source in code) <= 25
    assert "SEED" in code[0] and "import stage_lite" in code[0]
    assert not any(re.search(r"^import|^from (?!torch import Tensor)", s, re.M) for s in code[1:])
    assert text.count("**Predict.**") >= 3
    for heading in ("## Exercise", "## What could be wrong", "## Words", "## Sources"):
        assert heading in text
    for source in code:
        ast.parse(source)


@each
def test_every_clip_says_what_to_listen_for(file):
    """A clip is made with three words: its name, its audio, what to listen for."""
    for cell in nbformat.read(file, 4).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "clip":
                assert len(node.args) == 3, ast.unparse(node)
            assert getattr(getattr(node, "func", None), "attr", "") not in ("play", "Audio")


def test_the_script_runs_as_one(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "notebooks" / "build.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
