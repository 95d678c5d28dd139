"""Two or more ways to do the same work, timed in turns in one process.

In turns, because a machine that gets slower in the middle must not favour whoever came first: every
round runs each way once, in changing order, and what is compared is the median.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One line of a result."""

    what: str
    value: float
    unit: str
    peer: float | None = None  # the same of audiocraft, in the same unit
    bar: str = ""  # what is asked for

    @property
    def ratio(self) -> float | None:
        """How many times as much as audiocraft; above 1 is faster."""
        return self.value / self.peer if self.peer else None

    def as_json(self) -> dict:
        return asdict(self) | {"ratio": self.ratio}


def seconds_each(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall-clock seconds of each way, after one round to warm up."""
    names, taken = list(ways), {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            started = time.perf_counter()
            ways[name]()
            if number:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def machine() -> dict[str, object]:
    """What the numbers depend on, and whether the machine was busy with something else."""
    import torch

    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        load = None
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((x.split(":", 1)[1].strip() for x in lines if "model name" in x), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_before": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def table(rows: list[Row]) -> str:
    """All rows for a terminal and for Markdown."""
    lines = ["| what | Stage Lite | audiocraft | ratio | asked for |", "|---|---|---|---|---|"]
    for row in rows:
        peer = "" if row.peer is None else f"{row.peer:.3g} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"| {row.what} | {row.value:.3g} {row.unit} | {peer} | {ratio} | {row.bar} |")
    return "\n".join(lines)
