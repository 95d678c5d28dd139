"""What is installed, what is missing, and the command that mends it.

`python -m stage_lite doctor` prints one line per thing and ends with 0 when all that is needed is
there, with 1 otherwise. It runs where torch or audiocraft is missing or broken: that is when it is
needed. Versions are compared with the ranges in pyproject.toml, nowhere else.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import StageLiteError
from .shipped import shipped_models, verify

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
AUDIOCRAFT_COMMAND = "python -m pip install --no-deps audiocraft==1.3.0"

# program -> (what it is for, Debian's package); none of them is needed to generate or to learn.
PROGRAMS = {
    "ffmpeg": ("reading mp3 and comparing codecs", "ffmpeg"),
    "fluidsynth": ("making new music (make data)", "fluidsynth fluid-soundfont-gm"),
    "mma": ("making new music (make data)", "mma"),
    "chromium": ("browser tests of the widgets", "chromium"),
}
MANY = 5  # missing packages: then it is rather the wrong Python
SHOWN = ("soundfile", "librosa", "transformers", "lightning-fabric")  # a line of their own


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    state: str  # "ok", "optional" (missing, and that is allowed), "note" or "bad"
    value: str
    mend: str = ""  # the command or the sentence that helps


def examine() -> list[Finding]:
    """Everything that the table shows, in its order. Never raises on what it finds."""
    python = _python()
    if python.state == "bad":
        return [python]  # nothing else can be right
    return [
        python,
        *_packages(),
        _audiocraft(),
        *_programs(),
        *_weights(),
        _threads(),
        _memory(),
    ]


def report(findings: list[Finding]) -> str:
    """The table and the verdict below it, as text."""
    width = max(len(f.what) for f in findings)
    marks = {"ok": "ok  ", "optional": "-   ", "note": "note", "bad": "BAD "}
    lines = []
    for f in findings:
        lines.append(f"{marks[f.state]}  {f.what:<{width}}  {f.value}")
        if f.mend:
            lines.append(f"{'':4}  {'':<{width}}  -> {f.mend}")
    bad = [f.what for f in findings if f.state == "bad"]
    lines.append("")
    if bad:
        lines.append(f"{len(bad)} to mend: {', '.join(bad)}")
        if sum(f.value == "not installed" for f in findings) >= MANY:
            lines.append(
                f"So much is missing that {sys.executable} may be another Python than the one "
                "Stage Lite was installed for: use .venv/bin/python, or try `make install`."
            )
    else:
        lines.append("Everything that Stage Lite needs is here.")
    return "\n".join(lines)


def main() -> int:
    """Print the report. Returns 0, or 1 when something needed is missing or wrong."""
    findings = examine()
    print(report(findings))
    return int(any(f.state == "bad" for f in findings))


# --- one function per block of lines -----------------------------------------------------------


def _python() -> Finding:
    version = platform.python_version()
    if PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        return Finding("Python", "ok", f"{version} ({platform.system()}, {platform.machine()})")
    return Finding(
        "Python",
        "bad",
        f"{version}; expected 3.11 to 3.13",
        "make a new environment: python3.11 -m venv .venv",
    )


def _packages() -> Iterator[Finding]:
    """torch and torchaudio by importing them, the others by their versions."""
    ranges = _ranges()
    yield _torch(ranges.pop("torch", ""))
    yield _torchaudio(ranges.pop("torchaudio", ""))
    fine = 0
    for name, specifier in ranges.items():
        finding = _version(name, specifier)
        if finding.state != "ok" or name in SHOWN:
            yield finding
        else:
            fine += 1
    if fine:
        yield Finding("other packages", "ok", f"{fine} within their ranges")


def _torch(specifier: str) -> Finding:
    finding = _version("torch", specifier)
    if finding.state == "bad":
        return finding
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "torch",
            "bad",
            f"{finding.value} is there but cannot be imported ({_first_line(error)})",
            "install it again: python -m pip install --force-reinstall --no-deps torch",
        )
    if torch.cuda.is_available():
        device = f"cuda: {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    return Finding("torch", "ok", f"{torch.__version__} ({device})")


def _torchaudio(specifier: str) -> Finding:
    finding = _version("torchaudio", specifier)
    if finding.state == "bad":
        return finding
    try:
        from . import upstream

        upstream.torchaudio()
    except (StageLiteError, ImportError, OSError) as error:
        return Finding(
            "torchaudio",
            "bad",
            f"{finding.value} is there but cannot be imported ({_first_line(error)})",
            _no_deps("torchaudio"),
        )
    return finding


def _audiocraft() -> Finding:
    try:
        version = importlib.metadata.version("audiocraft")
    except importlib.metadata.PackageNotFoundError:
        return Finding("audiocraft", "bad", "not installed", AUDIOCRAFT_COMMAND)
    try:
        from . import upstream

        upstream.audiocraft_classes()
    except StageLiteError as error:  # says itself what to try
        return Finding("audiocraft", "bad", version, str(error))
    except (ImportError, OSError) as error:
        return Finding("audiocraft", "bad", f"{version} ({_first_line(error)})", AUDIOCRAFT_COMMAND)
    return Finding("audiocraft", "ok", f"{version}, its models can be imported")


def _programs() -> Iterator[Finding]:
    for name, (purpose, package) in PROGRAMS.items():
        found = shutil.which(name)
        if found:
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "optional", f"not found; only for {purpose}", _apt(package))


def _weights() -> Iterator[Finding]:
    models = shipped_models()
    if not models:
        yield Finding(
            "weights",
            "bad",
            "no model comes with this copy of the package",
            "install from a full clone of the repository, or `git checkout stage_lite/pretrained`",
        )
    for name, folder in models.items():
        try:
            digests = verify(folder)
        except StageLiteError as error:
            yield Finding(f"weights {name}", "bad", "broken", str(error))
            continue
        size = (folder / "lm.safetensors").stat().st_size / 1e6  # MB
        digest = digests.get("lm.safetensors", "")[:12] or "not recorded"
        yield Finding(f"weights {name}", "ok", f"{size:.1f} MB, sha256 {digest}")


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")
    used = f", torch uses {torch.get_num_threads()}" if torch else ""
    asked = os.environ.get("OMP_NUM_THREADS")
    value = f"{cores} cores{used}" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if torch and cores and torch.get_num_threads() > cores:
        return Finding(
            "threads", "note", value, f"more threads than cores: OMP_NUM_THREADS={cores}"
        )
    return Finding("threads", "ok", value)


def _memory() -> Finding:
    total = available = None
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        kb = dict(re.findall(r"^(\w+):\s+(\d+) kB", meminfo.read_text(), re.MULTILINE))
        total, available = int(kb["MemTotal"]) / 2**20, int(kb.get("MemAvailable", 0)) / 2**20
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if total is None:
        return Finding(
            "memory", "note", "unknown on this system; the nano models need about 1.2 GB"
        )
    value = f"{total:.1f} GB" + (f", {available:.1f} GB free" if available is not None else "")
    if available is not None and available < 1.2:
        return Finding("memory", "note", value, "the demo needs about 1.2 GB: close other programs")
    return Finding("memory", "ok", value)


# --- helpers -----------------------------------------------------------------------------------


def _ranges() -> dict[str, str]:
    """Package -> range, from the installed package or from the clone's pyproject.toml."""
    try:
        lines = importlib.metadata.requires("stage-lite") or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib  # not at the top: an older Python must still be told what is wrong

        file = Path(__file__).parents[1] / "pyproject.toml"
        lines = tomllib.loads(file.read_text())["project"]["dependencies"] if file.is_file() else []
    split = [
        re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)", line) for line in lines if "extra ==" not in line
    ]
    # Lower bounds first, as in pyproject.toml: pip's own records turn them round.
    return {m[1]: ",".join(sorted(m[2].strip().split(","), reverse=True)) for m in split if m}


def _version(name: str, specifier: str) -> Finding:
    command = f'python -m pip install "{name}{specifier}"'
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "bad", "not installed", command)
    if not _within(version, specifier):
        return Finding(name, "bad", f"{version}; expected {specifier}", command)
    return Finding(name, "ok", version)


def _within(version: str, specifier: str) -> bool:
    """Whether a version is in a range like `>=0.11,<2`; numbers only, as in pyproject.toml."""
    for part in filter(None, specifier.replace(" ", "").split(",")):
        operator, bound = re.fullmatch(r"(>=|<|==)([\d.]+)", part).groups()
        have, want = _numbers(version), _numbers(bound)
        if operator == ">=" and have < want:
            return False
        if operator == "<" and have >= want:
            return False
        if operator == "==" and have != want:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(n) for n in re.match(r"[\d.]*", version)[0].split(".") if n]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _no_deps(name: str) -> str:
    return f"python -m pip install --force-reinstall --no-deps {name}"


def _apt(package: str) -> str:
    if sys.platform == "darwin":
        return f"brew install {package.split()[0]}"
    return f"apt-get install {package}" if shutil.which("apt-get") else f"your system's {package}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:160]
