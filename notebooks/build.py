"""Make the notebooks from notebooks/src/*.py: the .py is the one place to edit.

    python notebooks/build.py           write what has changed
    python notebooks/build.py --check   write nothing, exit 1 if a notebook is not what its source says

A source (jupytext's percent format: a plain script, which JupyterLab opens as a notebook) gives two:

    notebooks/NAME.ipynb             for students: stubs, and each solution folded below its exercise
    notebooks/solutions/NAME.ipynb   with the solutions in place: runs whole, goes into nbgrader

What the sources say it with:

    ### BEGIN SOLUTION ... ### END SOLUTION    in a function: a student gets `raise NotImplementedError`
    checks.name(name)                          alone in a cell: the check of the exercise `name`;
                                               hints and wrong answers stand in the text below it
    # > text                                   at the end of a cell: what it prints. Kept in the
                                               notebook, and compared when nbval runs it

The solutions carry nbgrader's metadata and markers that nbgrader and otter read; neither is needed.
Other outputs are not kept: those of other weights would be untrue. The notebooks are not paired with
their sources by jupytext, because saving a student's notebook would then write stubs over solutions.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CHECK = re.compile(r"checks\.(\w+)\((\w+)\)")
SOLUTION = re.compile(
    r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION$", re.DOTALL | re.MULTILINE
)
MARKER = re.compile(r"### (?=(?:BEGIN|END) SOLUTION$)", re.MULTILINE)
PRINTED = re.compile(r"(?:\n# >.*)+\s*$")
STUB = "raise NotImplementedError"


def notebooks_of(source: Path) -> dict[Path, str]:
    """Target file, relative to `notebooks/`, -> its text, for the student and for the solution."""
    name = f"{source.stem}.ipynb"
    return {Path(name): student(_read(source)), Path("solutions", name): solution(_read(source))}


def student(notebook: NotebookNode) -> str:
    """Stubs instead of solutions; what comes after the first exercise is left out by nbval."""
    cells = notebook.cells
    for check, stub, folded in _exercises(cells):
        folded.source += _folded_solution(stub.source)
        stub.source = SOLUTION.sub(lambda found: found[1] + STUB, stub.source)
        _tag(check, "raises-exception")
    checks = [check for check, _, _ in _exercises(cells)]
    if checks:
        for cell in cells[cells.index(checks[0]) + 1 :]:
            if cell.cell_type == "code":
                _tag(cell, "nbval-skip")
    return _finish(notebook)


def solution(notebook: NotebookNode) -> str:
    """Solutions in place, between their markers, with what nbgrader wants to know."""
    for check, stub, _ in _exercises(notebook.cells):
        name = CHECK.fullmatch(check.source)[1]
        stub.source = MARKER.sub("# ", stub.source)  # one #: otter wants it so, nbgrader takes both
        shared = {"schema_version": 3, "task": False}
        stub.metadata["nbgrader"] = {
            **shared, "grade": False, "grade_id": name, "locked": False, "solution": True,
        }  # fmt: skip
        check.metadata["nbgrader"] = {
            **shared, "grade": True, "grade_id": f"check-{name}", "locked": True, "points": 1,
            "solution": False,
        }  # fmt: skip
    return _finish(notebook)


def _exercises(cells: list[NotebookNode]) -> Iterator[tuple[NotebookNode, ...]]:
    """(check, function above it, text below it) of every exercise."""
    for above, cell, below in zip(cells, cells[1:], cells[2:], strict=False):
        if cell.cell_type == "code" and CHECK.fullmatch(cell.source):
            yield cell, above, below


def _folded_solution(stub: str) -> str:
    """The function as it should be, without docstring and markers, behind a fold."""
    (function,) = [n for n in ast.parse(stub).body if isinstance(n, ast.FunctionDef)]
    lines = stub.splitlines()
    docstring = function.body[0]
    head = lines[function.lineno - 1 : docstring.lineno - 1]
    body = [
        textwrap.indent(textwrap.dedent(found[2]).rstrip(), found[1])
        for found in SOLUTION.finditer(stub)
    ]
    code = "\n".join([*head, *body])
    return f"\n\n<details><summary>Solution</summary>\n\n```python\n{code}\n```\n</details>"


def _read(source: Path) -> NotebookNode:
    notebook = jupytext.read(source, fmt="py:percent")
    for cell in notebook.cells:
        if cell.cell_type == "code" and (printed := PRINTED.search(cell.source)):
            lines = [line[3:].removeprefix(" ") for line in printed[0].split("\n")[1:]]
            cell.source = cell.source[: printed.start()]
            text = "\n".join(lines).rstrip() + "\n"
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
            cell.execution_count = 1  # or nbval says that a cell which was not run has outputs
            _tag(cell, "nbval-check-output")
    return notebook


def _tag(cell: NotebookNode, tag: str) -> None:
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]


def _finish(notebook: NotebookNode) -> str:
    """The text of the .ipynb; the same for the same source."""
    notebook.metadata = nbformat.from_dict(METADATA)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1  # ids that follow from the text keep diffs small
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    arguments = parser.parse_args()
    stale, known = [], set()
    for source in sorted((HERE / "src").glob("*.py")):
        for name, text in notebooks_of(source).items():
            target = HERE / name
            known.add(target)
            if target.is_file() and target.read_text(encoding="utf-8") == text:
                continue
            stale.append(name.as_posix())
            if not arguments.check:
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, encoding="utf-8")
                print(f"wrote {target}")
    orphans = {*HERE.glob("*.ipynb"), *HERE.glob("solutions/*.ipynb")} - known
    if orphans:
        print(f"without a source: {', '.join(sorted(p.name for p in orphans))}")
        return 1
    if arguments.check and stale:
        print(f"not what their sources say: {', '.join(stale)}; run: python notebooks/build.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
