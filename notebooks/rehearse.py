"""Run notebooks as hard as a class does, and tell what each took.

    python notebooks/rehearse.py                    all solutions, once
    python notebooks/rehearse.py 01 02 --seed 1     two of them, under another seed
    python notebooks/rehearse.py 03 --twice         every cell twice, as an impatient reader runs it
    python notebooks/rehearse.py 01 --student       the student's version with "Run all": stubs and all

Each runs in a folder of its own, elsewhere, in a kernel of its own; nothing is written into the
repository. Exit code 1 if a cell fails, or if the computing took longer than the notebook promises
("Computing: at most N s"), counted as CPU seconds per core of two, so that a busy machine does not
lie. The table gives wall clock, CPU seconds and peak memory (resident) of the kernel.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
PROMISE = re.compile(r"Computing: at most (\d+)\s+s")
CORES = 2  # of the machine that the promise is for
USAGE = """
import json, sys, time
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
except ImportError:  # Windows
    import psutil
    peak = psutil.Process().memory_info().peak_wset / 2**20
print(json.dumps({"cpu_s": time.process_time(), "peak_mb": peak}))
"""


def rehearsed(notebook: nbformat.NotebookNode, seed: int, twice: bool) -> nbformat.NotebookNode:
    """The notebook as it is run: seed replaced, cells doubled, a last cell that tells what it took."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.source = re.sub(r"^SEED = \d+$", f"SEED = {seed}", cell.source, flags=re.M)
        cells += [cell, nbformat.from_dict({**cell, "id": f"{cell.id}-2"})] if twice else [cell]
    notebook.cells = [*cells, nbformat.v4.new_code_cell(USAGE)]
    return notebook


def run(file: Path, seed: int, twice: bool, timeout_s: int) -> dict[str, float | str]:
    """What a run took, and what went wrong."""
    notebook = nbformat.read(file, 4)
    promise = PROMISE.search("\n".join(c.source for c in notebook.cells))
    notebook = rehearsed(notebook, seed, twice)
    result: dict[str, float | str] = {"promised_s": int(promise[1]) if promise else 0, "error": ""}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=timeout_s, kernel_name="python3",
                                resources={"metadata": {"path": folder}})  # fmt: skip
        try:
            client.execute()
            said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
            usage = json.loads(said[said.index('{"cpu_s"') :].splitlines()[0])
            result |= usage
            if promise and usage["cpu_s"] / CORES > int(promise[1]) and not twice:
                result["error"] = f"took longer than the {promise[1]} s that it promises"
        except CellExecutionError as error:
            result["error"] = str(error)
    result["wall_s"] = time.perf_counter() - began
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01; none is all")
    parser.add_argument("--student", action="store_true", help="the student's version, all of it")
    parser.add_argument("--seed", type=int, default=0, help="instead of the notebook's own")
    parser.add_argument("--twice", action="store_true", help="every cell twice in a row")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one cell")
    arguments = parser.parse_args()
    folder = HERE if arguments.student else HERE / "solutions"
    files = [
        file
        for file in sorted(folder.glob("*.ipynb"))
        if not arguments.names or any(file.name.startswith(name) for name in arguments.names)
    ]
    failed = not files
    for file in files:
        took = run(file, arguments.seed, arguments.twice, arguments.timeout)
        print(
            f"{file.stem:24} {took['wall_s']:6.0f} s wall {took.get('cpu_s', 0):6.0f} s CPU "
            f"{took.get('peak_mb', 0):6.0f} MB, promised {took['promised_s']} s "
            f"{'ok' if not took['error'] else 'FAILED'}",
            flush=True,
        )
        if took["error"]:
            print(took["error"])
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
