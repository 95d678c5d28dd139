"""Run the solved notebooks and keep what they showed, so that a page has sound and pictures.

A notebook is run again only when it, the library or the shipped weights have changed. Each runs in
a kernel and a folder of its own. What only a running kernel can show, a widget, is left to its
still twin: the picture and players that every widget also gives.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from stage_lite.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
SEEN_BY_ALL = ("stage_lite", "widgets", "data_samples")
WIDGET = "application/vnd.jupyter.widget-view+json"


def run_all(notebooks: Iterable[Path], cache: Path) -> dict[str, nbformat.NotebookNode]:
    """Stem -> executed notebook. Ctrl-C keeps those that are done.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    shared = _fingerprint(ROOT / folder for folder in SEEN_BY_ALL)
    done = {}
    for file in tqdm(sorted(notebooks), desc="notebooks", unit="notebook"):
        key = hashlib.sha256(file.read_bytes() + shared).hexdigest()[:16]
        kept = cache / f"{file.stem}-{key}.ipynb"
        if kept.exists():
            notebook = nbformat.read(kept, 4)
        else:
            print(f"{file.stem} ...", file=sys.stderr, flush=True)
            notebook = run(nbformat.read(file, 4))
            write_atomic(kept, nbformat.writes(notebook))
        done[file.stem] = notebook
    return done


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs; widgets give way to their still twins."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=900, kernel_name="python3", store_widget_state=False,
                       resources={"metadata": {"path": folder}}).execute()  # fmt: skip
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data:
                del data[WIDGET]
                if "text/html" not in data:  # a bar that counted progress: it has gone by
                    continue
            kept.append(output)
        if "outputs" in cell:
            cell.outputs = kept
    return notebook


def _fingerprint(folders: Iterable[Path]) -> bytes:
    """Of the names, sizes and (for code) contents of all files."""
    digest = hashlib.sha256()
    for path in _files(folders):
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
        if path.suffix in (".py", ".js", ".css", ".json", ".txt"):
            digest.update(path.read_bytes())
    return digest.digest()


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(
            p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts
        )
