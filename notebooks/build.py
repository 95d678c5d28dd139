"""Make notebooks/*.ipynb from notebooks/src/*.py: the .py is the place to edit.

    python notebooks/build.py           write what has changed
    python notebooks/build.py --check   write nothing, exit 1 if a notebook is not what its source says

Notebooks are kept without outputs: they run in a minute, and outputs of other weights would be untrue.
Back from an .ipynb that was edited in JupyterLab: python -m jupytext --sync notebooks/NAME.ipynb
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
METADATA = {
    "jupytext": {"formats": "ipynb,src//py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook_of(source: Path) -> str:
    """The text of the .ipynb of a percent script; the same for the same source."""
    notebook = jupytext.read(source, fmt="py:percent")
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
    stale = []
    for source in sorted((HERE / "src").glob("*.py")):
        target, text = HERE / f"{source.stem}.ipynb", notebook_of(source)
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(target.name)
        if not arguments.check:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {target}")
    if arguments.check and stale:
        print(f"not what their sources say: {', '.join(stale)}; run: python notebooks/build.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
