"""`python -m benchmarks` (or `make bench`): every number of this folder's README, in one run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import stage_lite as sl
from benchmarks import generation, metrics, musicgen_small, precision, startup, steps, training
from benchmarks.side_by_side import Row, machine, table
from stage_lite.shipped import shipped_models

PARTS = ("startup", "generation", "training")
# minutes each, so only when they are named
ASKED = ("musicgen_small", "steps", "precision", "metrics")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(PARTS)} (these three if none), {', '.join(ASKED)}"
    )
    parser.add_argument("--model", default="nano", help="name or folder (default: nano)")
    parser.add_argument("--rounds", type=int, default=5, help="of each timing (default: 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of music (default: 8)")
    parser.add_argument(
        "--n",
        type=int,
        help=f"windows of `precision` (default: {precision.N}) and `metrics` ({metrics.N})",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=precision.KEEP,
        help="folder for the numbers of `precision`, window by window: the same command goes on "
        f"with what is there (default: {precision.KEEP})",
    )
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    unknown = sorted(set(parts) - {*PARTS, *ASKED})
    if unknown:
        parser.error(f"unknown parts {unknown}; expected some of {', '.join(PARTS + ASKED)}")

    where = machine()
    print(", ".join(f"{name}: {value}" for name, value in where.items()))
    if (where["load_before"] or 0) > 0.5:
        print("note: the machine is busy with something else; ratios hold, absolute numbers do not")
    rows: list[Row] = []
    if "startup" in parts:
        if "nano" in shipped_models():
            rows += startup.measure(arguments.rounds)
        else:
            print("startup: left out, for there is no shipped model 'nano' here")
    if {"generation", "training"} & set(parts):
        model = sl.load(arguments.model)
        print(model)
        if "generation" in parts:
            share = generation.same_codes(model)
            print(f"greedy codes of both loops: {share:.1%} equal")
            rows += generation.compare(model, arguments.seconds, arguments.rounds)
        if "training" in parts:
            rows += training.compare(model, arguments.seconds, rounds=arguments.rounds)
    if "musicgen_small" in parts:
        rows += musicgen_small.measure(rounds=min(arguments.rounds, 2))
    if "steps" in parts:
        rows += steps.measure(rounds=arguments.rounds)
    if "metrics" in parts:
        n = metrics.N if arguments.n is None else arguments.n
        rows.append(metrics.measure(sl.load(arguments.model), n))
    if rows:
        print(table(rows))
    quality = None
    if "precision" in parts:
        n = precision.N if arguments.n is None else arguments.n
        quality = precision.measure(sl.load(arguments.model), n, arguments.keep)
        print(quality.to_string(na_rep=""))
    if arguments.json:
        values = {"machine": where, "rows": [row.as_json() for row in rows]}
        if quality is not None:
            values["precision"] = json.loads(quality.to_json(orient="index"))
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
