"""What a person waits for and pays before the first sound: import, load, the demo's memory.

Every number is of a fresh Python process; its files may be in the system's cache.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.side_by_side import Row

TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def measure(rounds: int = 3, demo: bool = True) -> list[Row]:
    """Seconds to import and to load, seconds and peak memory of the demo (Linux and macOS)."""
    rows = [
        Row("import stage_lite", _seconds("import stage_lite", rounds), "s", bar="at most 0.5 s"),
        Row(
            'import and sl.load("nano")',
            _seconds("import stage_lite as sl; sl.load('nano')", rounds),
            "s",
            bar="at most 4 s",
        ),
    ]
    if demo and hasattr(os, "wait4"):
        seconds, peak_gb = demo_cost()
        rows += [
            Row("demo, as a whole", seconds, "s", bar="at most 60 s"),
            Row("demo, peak memory", peak_gb, "GB", bar="at most 1.2 GB"),
        ]
    return rows


def demo_cost() -> tuple[float, float]:
    """Wall-clock seconds and peak resident memory in GB of `python -m stage_lite demo`."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "stage_lite", "demo", "--out", str(Path(folder) / "out")],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the demo ended with exit code {process.returncode}")
    unit = 1e9 if sys.platform == "darwin" else 1e6  # macOS counts bytes, Linux kilobytes
    return seconds, usage.ru_maxrss / unit


def _seconds(code: str, rounds: int) -> float:
    command = [sys.executable, "-c", TIMED.format(code)]
    taken = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    ]
    return statistics.median(taken)
