"""How many students a machine holds: one notebook in many kernels at once.

    python notebooks/classroom.py 01 --kernels 8

Each kernel runs the solved notebook from the top, all begin together, and the memory of all of them
is added up twice a second. What kernels share (the library's code, pages of the same files) is
counted once: proportional set size where the system tells it (Linux), else resident size, which
counts it for each. A last line says how many would fit into a machine of --memory GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SYSTEM_GB = 2.0  # kept for the system and the server
PROXY_MB = 60.0  # what a student's own JupyterLab takes beside the kernel


def memory_mb(process: psutil.Process) -> float:
    """Of a process and its children, in MB; 0 for one that is gone."""
    total = 0.0
    try:
        for each in [process, *process.children(recursive=True)]:
            info = each.memory_full_info()
            total += getattr(info, "pss", info.rss) / 2**20
    except psutil.Error:
        pass
    return total


def run_one(file: Path, gate: threading.Barrier, kernels: dict[int, psutil.Process]) -> float:
    """Run a notebook in a kernel of its own, beginning when all are ready; seconds it took."""
    notebook = nbformat.read(file, 4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=3600, kernel_name="python3",
                                resources={"metadata": {"path": folder}})  # fmt: skip
        with client.setup_kernel():
            kernels[threading.get_ident()] = psutil.Process(client.km.provisioner.pid)
            gate.wait()
            began = time.perf_counter()
            for place, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    client.execute_cell(cell, place)
            return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="beginning of the notebook's name, such as 01")
    parser.add_argument("--kernels", type=int, default=8)
    parser.add_argument("--memory", type=float, default=24.0, help="GB of the machine in question")
    args = parser.parse_args()
    files = sorted((HERE / "solutions").glob(f"{args.name}*.ipynb"))
    if len(files) != 1:
        print(f"{len(files)} notebooks begin with {args.name!r}; expected one")
        return 1
    gate = threading.Barrier(args.kernels)
    kernels: dict[int, psutil.Process] = {}
    peak, alone, over = 0.0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, alone
        while not over.wait(0.5):
            taken = [memory_mb(process) for process in list(kernels.values())]
            peak, alone = max(peak, sum(taken)), max(alone, *taken, 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(args.kernels) as pool:
            jobs = [pool.submit(run_one, files[0], gate, kernels) for _ in range(args.kernels)]
            took = [job.result() for job in jobs]
    finally:
        over.set()
        watcher.join()
    each = peak / args.kernels
    fit = int((args.memory - SYSTEM_GB) * 1024 / (each + PROXY_MB))
    print(f"{files[0].stem}: {args.kernels} kernels at once, {min(took):.0f} to {max(took):.0f} s, "
          f"peak {peak / 1024:.1f} GB in all, {each:.0f} MB each; {args.memory:.0f} GB hold {fit}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
