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
SERVER_MB = 100.0  # what a student's own JupyterLab takes beside the kernel


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


def together(file: Path, n: int) -> dict[str, float]:
    """Run a notebook in `n` kernels at once: MB of all at the peak, and the seconds they took."""
    gate = threading.Barrier(n)
    kernels: dict[int, psutil.Process] = {}
    peak, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.5):
            peak = max(peak, sum(memory_mb(process) for process in list(kernels.values())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(n) as pool:
            jobs = [pool.submit(run_one, file, gate, kernels) for _ in range(n)]
            took = [job.result() for job in jobs]
    finally:
        over.set()
        watcher.join()
    return {"kernels": n, "all_mb": peak, "first_s": min(took), "last_s": max(took)}


def students(each_mb: float, memory_gb: float) -> int:
    """How many kernels of `each_mb`, each with a server of its own, a machine holds."""
    return int((memory_gb - SYSTEM_GB) * 1024 / (each_mb + SERVER_MB))


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
    was = together(files[0], args.kernels)
    each = was["all_mb"] / args.kernels
    print(f"{files[0].stem}: {args.kernels} kernels at once, {was['first_s']:.0f} to "
          f"{was['last_s']:.0f} s, peak {was['all_mb'] / 1024:.1f} GB in all, {each:.0f} MB each; "
          f"{args.memory:.0f} GB hold {students(each, args.memory)}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
