"""Compute the evidence for STAGE's claims and write docs/evidence.md.

    python -m evidence                    every row, the most important one first
    python -m evidence listening tempo    some rows
    python -m evidence --list             what each row costs
    python -m evidence --page             only the page, from the rows that are there

Stop it at any time: what has been computed is kept in --work, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import ModuleType

from evidence import (
    ablations,
    border,
    continuation,
    learning,
    listening,
    other_ways,
    tempo,
    words,
)
from evidence.content import Cost, Missing
from evidence.desk import FULL_N, WINDOW_S, Desk
from evidence.page import build
from stage_lite.errors import StageLiteError
from stage_lite.files import write_atomic
from stage_lite.result_store import without_nan

ROWS: dict[str, ModuleType] = {  # in the order of their weight, which is that of the work
    "listening": listening,
    "other_ways": other_ways,
    "tempo": tempo,
    "continuation": continuation,
    "border": border,
    "words": words,
    "ablations": ablations,
    "learning": learning,
}
# Seconds of two idle cores: for a second of generated music (batches of 16), for a second that is
# decoded and listened to, and for a step of a small training (32 windows).
GENERATED_S, HEARD_S, STEP_S = 0.05, 0.03, 0.35
ROOT = Path(__file__).parents[1]
TOKENS = [ROOT / "data_samples" / name for name in ("tokens", "tokens_test")]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    parser.add_argument("--list", action="store_true", help="tell what the rows cost, and end")
    parser.add_argument("--page", action="store_true", help="only the page, from the rows' JSON")
    parser.add_argument("--n", type=int, default=FULL_N, help=f"windows ({FULL_N})")
    parser.add_argument("--seed", type=int, default=0, help="of windows and of generation (0)")
    parser.add_argument("--seeds", type=int, default=3, help="of each small training (3)")
    parser.add_argument("--steps", type=int, default=300, help="of each small training (300)")
    parser.add_argument("--model", default="nano", help="name or folder of what is judged (nano)")
    parser.add_argument("--base", default="nano-base", help="what it was trained from (nano-base)")
    parser.add_argument("--tokens", type=Path, nargs="+", default=TOKENS,
                        help="folders of shards; the first one is for training too")  # fmt: skip
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "evidence",
                        help="keeps results and small models")  # fmt: skip
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="gets evidence.md")
    parser.add_argument("--longest-s", type=float, default=WINDOW_S, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=16, help="clips at once (16)")
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed",
                        help="of the small trainings")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--progress", choices=("bar", "lines", "none"), default="bar")
    args = parser.parse_args(argv)
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"unknown rows {unknown}; expected some of {', '.join(ROWS)}")
    for name, least in (("n", 4), ("seeds", 1), ("steps", 1), ("threads", 1), ("batch_size", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least "
                         f"{least}")  # fmt: skip
    args.rows = args.rows or list(ROWS)
    args.seed_numbers = list(range(args.seeds))
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    folder, page = args.docs / "evidence", args.docs / "evidence.md"
    if args.list:
        print(listed(args))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    missing = {} if args.page else compute(args, folder, page)
    print(f"written: {build(ROWS, folder, page)}")
    if missing is None:
        print("stopped; what was computed is kept, the same command goes on")
        return 130
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    return 1 if missing else 0


def compute(args: argparse.Namespace, folder: Path, page: Path) -> dict[str, str] | None:
    """Each row to its JSON and the page; row -> why it could not be had, or None after Ctrl-C."""
    import torch

    torch.set_num_threads(args.threads)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where it was started in the background
        signal.signal(number, signal.default_int_handler)
    desk, missing = Desk(args), {}
    for name in args.rows:
        print(f"--- {name}: {ROWS[name].TITLE} {_about(args, name)}", flush=True)
        try:
            row = ROWS[name].run(desk)
        except (Missing, StageLiteError) as error:
            missing[name] = str(error)
            print(f"missing: {error}", flush=True)
            continue
        except KeyboardInterrupt:
            return None
        row = {"row": name, "what": " ".join(ROWS[name].run.__doc__.split()), "seed": args.seed,
               "command": _command(args, name)} | row  # fmt: skip
        write_atomic(folder / f"{name}.json", json.dumps(without_nan(row), indent=1) + "\n")
        build(ROWS, folder, page)
    return missing


def listed(args: argparse.Namespace) -> str:
    """The rows with what they ask for, and about how long that takes."""
    lines = [f"{'row':14}{'music':>10}{'training':>14}{'about':>9}"]
    total = Cost()
    for name in args.rows:
        cost = _cost(args, name)
        total = total + cost
        lines.append(_line(name, cost))
    lines.append(_line("all", total))
    lines.append("minutes of two idle cores; rows share clips and trainings, so together they take "
                 "less; what is in the cache takes none")  # fmt: skip
    return "\n".join(lines)


def _cost(args: argparse.Namespace, name: str) -> Cost:
    cost = ROWS[name].cost(args.n, args.seeds)
    return Cost(cost.clip_s, cost.heard_s, cost.steps * args.steps)


def _minutes(cost: Cost) -> float:
    return (cost.clip_s * GENERATED_S + cost.heard_s * HEARD_S + cost.steps * STEP_S) / 60


def _line(name: str, cost: Cost) -> str:
    music = f"{cost.clip_s / 60:.0f} min" if cost.clip_s else ""
    steps = f"{cost.steps} steps" if cost.steps else ""
    return f"{name:14}{music:>10}{steps:>14}{_minutes(cost):>5.0f} min"


def _about(args: argparse.Namespace, name: str) -> str:
    return f"(about {_minutes(_cost(args, name)):.0f} minutes of two idle cores)"


def _command(args: argparse.Namespace, name: str) -> str:
    given = {"n": FULL_N, "seed": 0, "seeds": 3, "steps": 300}
    more = [f" --{k} {getattr(args, k)}" for k, v in given.items() if getattr(args, k) != v]
    return f"python -m evidence {name}" + "".join(more)


if __name__ == "__main__":
    sys.exit(main())
