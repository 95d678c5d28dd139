"""nbgrader makes a student's notebook of ours and grades it by our checks; otter reads its marks.

They are no part of the tested set. To run this, install nbgrader and otter-grader into an
environment of their own and say where: NBGRADER=/path/to/that/environment/bin/nbgrader. The
notebook's kernel is this environment.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import stage_lite

OTTER = """
import json, sys
try:
    from otter.assign.solutions import replace_solutions
except ImportError:
    sys.exit(3)
cells = json.load(sys.stdin)
cells = [replace_solutions(cell.split("\\n"), "python") for cell in cells]
json.dump(["\\n".join(lines) for lines in cells], sys.stdout)
"""
ROOT = Path(stage_lite.__file__).parents[1]
SOLVED = ROOT / "notebooks" / "solutions" / "01_tokenization.ipynb"
NBGRADER = os.environ.get("NBGRADER") or shutil.which("nbgrader")
pytestmark = [
    pytest.mark.skipif(NBGRADER is None, reason="no nbgrader here: see the file's first lines"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course after grading: "solver" handed in the solution, "sleeper" what was given out."""
    folder = tmp_path_factory.mktemp("course")
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": start, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    config = "c = get_config()\nc.CourseDirectory.course_id = 'a'\n"
    (folder / "nbgrader_config.py").write_text(config)
    programs = Path(NBGRADER).absolute().parent  # it calls others of its environment
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "JUPYTER_PATH": str(kernel.parents[1]),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
    }

    def nbgrader(*words: str) -> None:
        done = subprocess.run([NBGRADER, *words], cwd=folder, env=environment, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    (folder / "source" / "codes").mkdir(parents=True)
    shutil.copy(SOLVED, folder / "source" / "codes")
    nbgrader("generate_assignment", "codes")
    given = folder / "release" / "codes" / SOLVED.name
    for student, file in {"solver": SOLVED, "sleeper": given}.items():
        handed_in = folder / "submitted" / student / "codes"
        handed_in.mkdir(parents=True)
        shutil.copy(file, handed_in / SOLVED.name)
    nbgrader("autograde", "codes", "--create")
    nbgrader("export", "--to", str(folder / "grades.csv"))
    return folder


def test_what_is_given_out_holds_no_solution(course):
    given = nbformat.read(course / "release" / "codes" / SOLVED.name, 4)
    text = "\n".join(cell.source for cell in given.cells)
    assert "SOLUTION" not in text and text.count("raise NotImplementedError") == 4
    solved = nbformat.read(SOLVED, 4)
    assert sum("BEGIN SOLUTION" in cell.source for cell in solved.cells) == 4


def test_marks_are_those_of_the_checks(course):
    rows = {row["student_id"]: row for row in csv.DictReader((course / "grades.csv").open())}
    assert float(rows["solver"]["score"]) == float(rows["solver"]["max_score"]) == 4
    assert float(rows["sleeper"]["score"]) == 0 and float(rows["sleeper"]["max_score"]) == 4


def test_otter_takes_the_solutions_out():
    solved = [c.source for c in nbformat.read(SOLVED, 4).cells if "BEGIN SOLUTION" in c.source]
    python = Path(NBGRADER).absolute().parent / Path(sys.executable).name
    done = subprocess.run([python, "-c", OTTER], input=json.dumps(solved), capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode == 3:
        pytest.skip("no otter-grader beside nbgrader")
    assert done.returncode == 0, done.stderr[-2000:]
    for before, after in zip(solved, json.loads(done.stdout), strict=True):
        assert "SOLUTION" not in after and after.rstrip().endswith("...")
        assert after.splitlines()[0] == before.splitlines()[0]
        compile(after, "cell", "exec")
