"""The classroom kit: one zip that installs and runs without any network.

    make wheelhouse                          build out/stage-lite-offline.zip and try it
    python dev/wheelhouse.py --no-check      build it only

The zip holds the project as committed and a folder `wheels/` with every package of the tested set,
built for this machine's kind of system and Python: make one per kind of machine in the room. On the
other machine

    unzip stage-lite-offline.zip && cd stage-lite && make demo

installs from `wheels/` (the Makefile looks for it), as do all other make commands. Where there is
no make, `wheels/README.txt` has the lines to type. The check unpacks the zip elsewhere, installs it
into a new environment with the network taken away, and runs the demo there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "stage-lite"
BUILD_TOOLS = ("setuptools>=64", "wheel", "pip")  # what an installation from wheels needs itself
STORED = {".whl", ".gz", ".png", ".ogg", ".safetensors"}  # packed already
CUDA = re.compile(r"^(nvidia[-_]|triton-)", re.IGNORECASE)


def requirements(root: Path = ROOT) -> list[str]:
    """The tested set, as pip takes it, audiocraft included."""
    lines = []
    for name in ("requirements.txt", "requirements-nodeps.txt"):
        for line in (root / name).read_text("utf-8").splitlines():
            wanted = line.split("#")[0].strip()
            if wanted:
                lines.append(wanted)
    return lines


def build_wheels(folder: Path, wanted: Sequence[str], torch_args: Sequence[str]) -> None:
    """A wheel of each in `folder`; what is there already is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder)]
    pip += ["--find-links", str(folder)]
    torch = [line for line in wanted if re.match(r"torch==", line)]
    # torch alone, as in the Makefile: which build it is, CPU or CUDA, is the one choice
    for lines, more in ((torch, torch_args), (BUILD_TOOLS, ()), (wanted, ("--no-deps",))):
        if lines:
            subprocess.run([*pip, *lines, *more], check=True)


def missing_wheels(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Lines of `wanted` that no wheel of `folder` is for."""
    have = {_plain("==".join(path.name.split("-")[:2])) for path in folder.glob("*.whl")}
    bare = {name.split("+")[0] for name in have}  # torch==2.13.0+cpu serves torch==2.13.0
    return [line for line in wanted if _plain(line.split(";")[0].strip()) not in have | bare]


def chosen_wheels(folder: Path, wanted: Sequence[str]) -> list[Path]:
    """The wheels of `folder` without other versions of what `wanted` pins."""
    pins = dict(_plain(line.split(";")[0]).split("==") for line in wanted if "==" in line)
    chosen = []
    for path in sorted(folder.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        if pins.get(_plain(name), version).split("+")[0] == version.split("+")[0]:
            chosen.append(path)
    return chosen


def committed_files(root: Path = ROOT) -> list[str]:
    """Paths of the project's files, as git knows them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]


def readme(wheels: Sequence[Path]) -> str:
    """How to install by hand, and what these wheels are for."""
    total = sum(path.stat().st_size for path in wheels) / 1e6
    return f"""Stage Lite without network
==========================
{len(wheels)} packages, {total:.0f} MB, for {sysconfig.get_platform()} and Python {_python()}.
A machine of another kind, or another Python, needs a kit made on such a machine.

With make:     make demo     (any other command of the Makefile too)
Without make:
    python -m venv .venv
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels      (Windows: set, and one name at a time)
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/python -m pip install --no-deps -r requirements-nodeps.txt
    .venv/bin/python -m pip install --no-deps -e .
    .venv/bin/python -m stage_lite demo
On Windows it is .venv\\Scripts\\python instead of .venv/bin/python.
"""


def pack(zip_path: Path, root: Path, files: Sequence[str], wheels: Sequence[Path]) -> None:
    """Write the zip, which appears when it is whole; wheels/SHA256 holds the wheels' checksums."""
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    part = zip_path.with_suffix(".part")
    sums = []
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as kit:
            for name in files:
                kind = zipfile.ZIP_STORED if Path(name).suffix in STORED else None
                kit.write(root / name, f"{NAME}/{name}", compress_type=kind)
            for path in sorted(wheels):
                with path.open("rb") as file:
                    sums.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
                kit.write(path, f"{NAME}/wheels/{path.name}", compress_type=zipfile.ZIP_STORED)
            kit.writestr(f"{NAME}/wheels/SHA256", "".join(sums))
            kit.writestr(f"{NAME}/wheels/README.txt", readme(wheels))
        os.replace(part, zip_path)
    finally:
        part.unlink(missing_ok=True)


def try_out(zip_path: Path) -> Path:
    """Unpack, install and run the demo with the network taken away.

    Returns:
        The folder with the demo's output, for a look.

    Raises:
        subprocess.CalledProcessError: a step failed; its own words stand above.
    """
    folder = Path(tempfile.mkdtemp(prefix="stage-lite-kit-"))
    with zipfile.ZipFile(zip_path) as kit:
        kit.extractall(folder)
    if shutil.which("make") is None:
        raise SystemExit("no make here, so the kit was not tried: see wheels/README.txt in it")
    command = [*without_network(), "make", f"PY={sys.executable}", "demo"]
    # a proxy or an index of this machine's own settings would be no test
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("PIP_", "UV_"))}
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    subprocess.run(command, cwd=folder / NAME, env=kept, check=True)
    shutil.rmtree(folder / NAME / ".venv")
    shutil.rmtree(folder / NAME / "wheels")
    return folder / NAME / "out"


def without_network() -> list[str]:
    """What to put before a command so that it finds no network; [] where that cannot be had."""
    prefix = ["unshare", "--map-root-user", "--net"]
    works = shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode
    if not works:
        print("no way to take the network away here: pip is told not to use it instead")
    return prefix if works else []


def _plain(requirement: str) -> str:
    name, is_pinned, version = requirement.replace(" ", "").partition("==")
    return re.sub(r"[-_.]+", "-", name).lower() + is_pinned + version


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / f"{NAME}-offline.zip")
    parser.add_argument("--wheels", type=Path, default=ROOT / "work" / "wheels", help="kept here")
    parser.add_argument("--torch-args", default="", help="more words for pip when it takes torch")
    parser.add_argument("--no-check", action="store_true", help="do not try the kit")
    args = parser.parse_args()
    wanted = requirements()
    print("wheels of", len(wanted), "packages into", args.wheels, flush=True)
    build_wheels(args.wheels, wanted, args.torch_args.split())
    if missing := missing_wheels(args.wheels, wanted):
        raise SystemExit(f"no wheel came of: {', '.join(missing)}")
    wheels = chosen_wheels(args.wheels, wanted)
    if cuda := [path.name for path in wheels if CUDA.match(path.name)]:
        print(f"{len(cuda)} packages are for CUDA, several GB: see README.md, 'CPU only on Linux'")
    pack(args.out, ROOT, committed_files(), wheels)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB")
    if not args.no_check:
        print("it plays, without network:", try_out(args.out))


if __name__ == "__main__":
    main()
