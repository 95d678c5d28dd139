"""The classroom kit: one zip that installs and runs without any network.

    make wheelhouse                          build out/stage-lite-offline.zip and try it
    python dev/wheelhouse.py --everything    with the packages for tests and site, too
    python dev/wheelhouse.py --no-check      build it only

The zip holds the project as committed and a folder `wheels/` with the packages that the library,
its commands, the lessons and JupyterLab need, in their tested versions. What only tests, lint and
the site need (the sections LEFT_OUT of requirements.txt, and what comes with them alone) stays out:
a student runs none of it. The zip's own requirements.txt says the same. Wheels are for this
machine's kind of system and Python: make one kit per kind of machine in the room. On the other one

    unzip stage-lite-offline.zip && cd stage-lite && make demo

installs from `wheels/` (the Makefile looks for it), as do `make lab` and `make doctor`. Where there
is no make, `wheels/README.txt` has the lines to type. The check unpacks the zip elsewhere, installs
it into a new environment with the network taken away, and runs demo, doctor and a lesson.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NAME = "stage-lite"
BUILD_TOOLS = ("setuptools>=64", "wheel", "pip")  # what an installation from wheels needs itself
STORED = {".whl", ".gz", ".png", ".ogg", ".safetensors"}  # packed already
CUDA = re.compile(r"^(nvidia[-_]|triton-)", re.IGNORECASE)
LEFT_OUT = ("Tests and lint", "The site")  # sections of requirements.txt
BROUGHT = "What those bring along"  # the section of what stands there for the others' sake
LESSON = "notebooks/solutions/00_quickstart.ipynb"  # run by the check


def requirements(root: Path = ROOT) -> list[str]:
    """The tested set, as pip takes it, audiocraft included."""
    return [line for lines in _sections(root).values() for line in lines]


def student_requirements(root: Path = ROOT) -> list[str]:
    """The tested set without what only the sections LEFT_OUT need.

    Which package needs which is read from what is installed here.

    Raises:
        SystemExit: a section that should be left out is not there.
    """
    sections = _sections(root)
    if absent := [title for title in (*LEFT_OUT, BROUGHT) if title not in sections]:
        raise SystemExit(f"requirements.txt has no section {absent}: correct LEFT_OUT or BROUGHT")
    kept = [t for t in sections if t not in (*LEFT_OUT, BROUGHT)]
    needed = _with_needs([line for title in kept for line in sections[title]])
    return [line for line in requirements(root) if _plain(line).split("==")[0] in needed]


def _sections(root: Path) -> dict[str, list[str]]:
    """Comment above a block of requirements -> its lines."""
    found: dict[str, list[str]] = {}
    for name in ("requirements.txt", "requirements-nodeps.txt"):
        title = name
        for line in (root / name).read_text("utf-8").splitlines():
            wanted, is_comment, comment = line.partition("#")
            if wanted.strip():
                found.setdefault(title, []).append(wanted.strip())
            elif is_comment:
                title = comment.strip()
    return found


def _with_needs(lines: Sequence[str]) -> set[str]:
    """Names of the packages in `lines`, what they require, what those require, and so on."""
    todo, done = [Requirement(line) for line in lines], set()
    while todo:
        wanted = todo.pop()
        name = _plain(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            if name == "audiocraft":  # its own list cannot be met: see requirements-nodeps.txt
                continue
            try:
                needs = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:  # not for this system
                continue
            for need in map(Requirement, needs):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    todo.append(need)
    return {name for name, _ in done}


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


def chosen_wheels(folder: Path, wanted: Sequence[str], tested: Sequence[str] = ()) -> list[Path]:
    """The wheels of `folder` that serve `wanted`, and those that no line of `tested` names.

    The latter are what an installation itself needs, or what torch's build brings. Other versions
    of what is pinned, and packages of `tested` that are not in `wanted`, stay out.
    """
    pins = dict(_plain(line.split(";")[0]).split("==") for line in wanted if "==" in line)
    out = {_plain(line).split("==")[0] for line in tested} - set(pins)
    chosen = []
    for path in sorted(folder.glob("*.whl")):
        name, version = _plain(path.name.split("-")[0]), path.name.split("-")[1]
        if name not in out and pins.get(name, version).split("+")[0] == version.split("+")[0]:
            chosen.append(path)
    return chosen


def largest(wheels: Sequence[Path], n: int = 8) -> str:
    """A line with the names and sizes of the largest of them."""
    by_size = sorted(wheels, key=lambda path: -path.stat().st_size)
    return ", ".join(f"{p.name.split('-')[0]} {p.stat().st_size / 1e6:.0f} MB" for p in by_size[:n])


def committed_files(folder: Path, root: Path = ROOT) -> list[str]:
    """Lay out the project as last committed in `folder`; paths of its files.

    Raises:
        SystemExit: `root` is no git clone.
    """
    git = ["git", "-C", str(root)]
    archive = subprocess.run([*git, "archive", "HEAD"], capture_output=True)
    if archive.returncode:
        raise SystemExit(f"the kit is made from a git clone: {archive.stderr.decode().strip()}")
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True).stdout.decode()
    if changed:
        print(f"not in the kit: {len(changed.splitlines())} files that changed since the commit")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
        return [member.name for member in tar if member.isfile()]


def readme(wheels: Sequence[Path]) -> str:
    """How to install by hand, and what these wheels are for."""
    total = sum(path.stat().st_size for path in wheels) / 1e6
    return f"""Stage Lite without network
==========================
{len(wheels)} packages, {total:.0f} MB, for {sysconfig.get_platform()} and Python {_python()}.
A machine of another kind, or another Python, needs a kit made on such a machine.

With make:     make demo, make lab, make doctor
               (make test and make site need packages that a student does not: they are not here)
Without make:
    python -m venv .venv
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels      (Windows: set, and one name at a time)
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/python -m pip install --no-deps -r requirements-nodeps.txt
    .venv/bin/python -m pip install --no-deps -e .
    .venv/bin/python -m stage_lite demo
On Windows it is .venv\\Scripts\\python instead of .venv/bin/python.
"""


def pack(
    zip_path: Path,
    root: Path,
    files: Sequence[str],
    wheels: Sequence[Path],
    wanted: Sequence[str] | None = None,
) -> None:
    """Write the zip, which appears when it is whole; wheels/SHA256 holds the wheels' checksums.

    Args:
        zip_path: of the kit.
        root: of the project.
        files: of the project, relative to `root`.
        wheels: that go into wheels/.
        wanted: what the kit's requirements.txt is cut down to; None: it stays as it is.
    """
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    part = zip_path.with_suffix(".part")
    sums = []
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as kit:
            for name in files:
                if name == "requirements.txt" and wanted is not None:
                    text = (root / name).read_text("utf-8")
                    kit.writestr(f"{NAME}/{name}", _cut_down(text, wanted))
                    continue
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


def _cut_down(text: str, wanted: Sequence[str]) -> str:
    """A requirements.txt without the packages that are not wanted."""
    lines = [
        line
        for line in text.splitlines()
        if not line.split("#")[0].strip() or line.split("#")[0].strip() in wanted
    ]
    heads = "|".join(f"# {title}\n\n" for title in LEFT_OUT)
    return re.sub(heads, "", "\n".join(lines)) + "\n"


def try_out(zip_path: Path) -> Path:
    """Unpack and install with the network taken away; run demo, doctor and a lesson.

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
    offline = without_network()
    python = Path(".venv") / ("Scripts" if os.name == "nt" else "bin") / "python"
    # a proxy or an index of this machine's own settings would be no test
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("PIP_", "UV_"))}
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    for command in (
        ["make", f"PY={sys.executable}", "demo"],
        ["make", "doctor"],
        [
            str(python),
            "-m",
            "nbconvert",
            "--execute",
            "--to",
            "html",
            "--output-dir",
            "out",
            LESSON,
        ],
    ):
        print("without network:", *command, flush=True)
        subprocess.run([*offline, *command], cwd=folder / NAME, env=kept, check=True)
    shutil.rmtree(folder / NAME / ".venv")
    shutil.rmtree(folder / NAME / "wheels")
    return folder / NAME / "out"


def without_network() -> list[str]:
    """What to put before a command so that it finds no network; [] where that cannot be had.

    The machine's address for itself stays: a notebook talks to its kernel through it.
    """
    prefix = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"']
    prefix += ["sh"]
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
    parser.add_argument("--everything", action="store_true", help="packages for tests and site too")
    parser.add_argument("--no-check", action="store_true", help="do not try the kit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as project:
        root = Path(project)
        files = committed_files(root)
        tested = requirements(root)
        wanted = tested if args.everything else student_requirements(root)
        print("wheels of", len(wanted), "packages into", args.wheels, flush=True)
        build_wheels(args.wheels, wanted, args.torch_args.split())
        if missing := missing_wheels(args.wheels, wanted):
            raise SystemExit(f"no wheel came of: {', '.join(missing)}")
        wheels = chosen_wheels(args.wheels, wanted, tested)
        if cuda := [path.name for path in wheels if CUDA.match(path.name)]:
            print(f"{len(cuda)} packages are for CUDA, several GB: README.md, 'CPU only on Linux'")
        pack(args.out, root, files, wheels, wanted)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB, of that {largest(wheels)}")
    if not args.no_check:
        print("it plays, without network:", try_out(args.out))


if __name__ == "__main__":
    main()
