"""Measure what each notebook needs, and write the table of docs/teaching.md.

    OMP_NUM_THREADS=1 python notebooks/measure.py                  all solutions, one by one
    OMP_NUM_THREADS=1 python notebooks/measure.py 00 --kernels 8   one of them in eight kernels at once
    python notebooks/measure.py --table                            write the table anew, measure nothing

What was measured is kept in docs/measured.json, one entry per notebook, so a run may be stopped and
go on later. One thread per kernel: that is how a shared server is set up, and on a busy machine
threads that wait for each other would be counted as computing.
"""

from __future__ import annotations

import argparse
import json
import sys

from classroom import HERE, SERVER_MB, SYSTEM_GB, students, together
from rehearse import run

from stage_lite.files import write_atomic

KEPT = HERE.parent / "docs" / "measured.json"
PAGE = HERE.parent / "docs" / "teaching.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MEMORY_GB = 24.0


def table(measured: dict[str, dict]) -> str:
    """The table and the words around it, as Markdown.

    Args:
        measured: stem of a notebook -> `cpu_s`, `peak_mb`, `promised_s`, and `together` where it was
            run in several kernels at once.
    """
    lines = [
        "| notebook | computing, CPU seconds | promised, s on two cores | peak memory, MB "
        "| eight at once, MB each | students on 24 GB |",
        "|---|---|---|---|---|---|",
    ]
    for stem, one in sorted(measured.items()):
        tried = one.get("together")
        each = tried["all_mb"] / tried["kernels"] if tried else one["peak_mb"]
        lines.append(
            f"| {stem} | {one['cpu_s']:.0f} | {one['promised_s']} | {one['peak_mb']:.0f} "
            f"| {f'{each:.0f}' if tried else ''} | {students(each, MEMORY_GB)} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Solutions, run from the top. Times are CPU seconds with one thread per kernel, measured "
            "on a machine with two cores that others used as well, so take them as a guide: waiting "
            "is not in them, but what others do to caches and memory is. What is promised is for two "
            "cores to itself, so that twice as many CPU seconds fit. Peak memory is resident memory.",
            "",
            "**How many students** a JupyterHub of 24 GB holds is computed: "
            f"{SYSTEM_GB:.0f} GB are left to the system, {SERVER_MB:.0f} MB go to each student's own "
            "JupyterLab, the rest to kernels. Where eight kernels ran the notebook at the same time, "
            "the memory of all eight at its peak is divided by eight (what they share is counted "
            "once); elsewhere it is the peak of one. Memory is not all: on two cores thirty kernels "
            "that compute at once take fifteen times as long as one with a core of its own. Reckon "
            "with a core for each four students, and set `OMP_NUM_THREADS=1`.",
        ]
    )


def write_table(measured: dict[str, dict]) -> None:
    """Put the table between its marks.

    Raises:
        SystemExit: the marks are not there.
    """
    text = PAGE.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} has no lines {BEGIN} and {END}: put them where the table goes")
    write_atomic(PAGE, f"{before}{BEGIN}\n{table(measured)}\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01; none is all")
    parser.add_argument("--kernels", type=int, default=1, help="more than one: that many at once")
    parser.add_argument("--table", action="store_true", help="only write the table anew")
    args = parser.parse_args()
    measured = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    files = sorted((HERE / "solutions").glob("*.ipynb"))
    for file in () if args.table else files:
        if args.names and not file.name.startswith(tuple(args.names)):
            continue
        if args.kernels > 1:
            was = together(file, args.kernels)
            measured.setdefault(file.stem, {})["together"] = {k: round(v) for k, v in was.items()}
        else:
            was = run(file, 0, False, 3600)
            if "cpu_s" not in was:
                print(file.stem, was["error"])
                return 1
            numbers = {k: round(was[k]) for k in ("cpu_s", "peak_mb", "promised_s")}
            measured.setdefault(file.stem, {}).update(numbers)
        print(file.stem, measured[file.stem], flush=True)
        write_atomic(KEPT, json.dumps(measured, indent=1, sort_keys=True) + "\n")
    write_table({stem: one for stem, one in measured.items() if "cpu_s" in one})
    return 0


if __name__ == "__main__":
    sys.exit(main())
