"""The repository keeps its promises: versions in one place, files that exist, no copies."""

import ast
import graphlib
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stage_lite
from stage_lite.doctor import AUDIOCRAFT_COMMAND, PYTHON_BELOW, PYTHON_FROM, _within

ROOT = Path(stage_lite.__file__).parents[1]
PACKAGE = ROOT / "stage_lite"
SOURCES = sorted(PACKAGE.glob("**/*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Arrows run downwards only: none of these files may be imported by the files below it.
TOP = ["__main__", "demo", "attention_charts", "charts", "plots", "training", "doctor", "model"]


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


GUARDED = re.compile(r"if TYPE_CHECKING:\n(?:(?: {4}.*)?\n)+?(?=\S)")  # names for annotations only


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports when it runs; the package's own as `stage_lite.x`."""
    found = set()
    for node in ast.walk(ast.parse(GUARDED.sub("", file.read_text()))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ("stage_lite." if node.level else "") + (node.module or "")
            if module in ("stage_lite", "stage_lite."):
                found |= {f"stage_lite.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


# --- versions ----------------------------------------------------------------------------------


def test_tested_pins_are_within_the_ranges():
    pinned = {name.lower().replace("_", "-"): version for name, version in pins().items()}
    extras = PROJECT["project"]["optional-dependencies"]
    for line in [*PROJECT["project"]["dependencies"], *extras["notebooks"], *extras["test"]]:
        name, specifier = re.match(r"([\w-]+)(.*)", line).groups()
        name = name.replace("_", "-")
        assert name in pinned, f"requirements.txt does not pin {name}"
        assert _within(pinned[name], specifier), f"{name}=={pinned[name]} is not in {specifier}"


def test_this_environment_is_the_tested_one():
    """Only a note when it is another: every other test still counts."""
    other = [
        f"{name} {importlib.metadata.version(name)} (tested: {version})"
        for name, version in pins().items()
        if importlib.metadata.version(name).split("+")[0] != version
    ]
    if other:
        pytest.skip("not the versions of requirements.txt: " + ", ".join(other))


def test_audiocraft_stands_in_one_version_everywhere():
    line = (ROOT / "requirements-nodeps.txt").read_text().splitlines()[-1]
    assert line == "audiocraft==1.3.0"
    assert AUDIOCRAFT_COMMAND.endswith(line)
    assert "audiocraft" not in " ".join(PROJECT["project"]["dependencies"])
    from stage_lite import upstream

    assert f"audiocraft=={upstream.AUDIOCRAFT_VERSION}" == line


def test_version_and_python_range():
    assert f"## [{stage_lite.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    low, high = ("{}.{}".format(*v) for v in (PYTHON_FROM, PYTHON_BELOW))
    assert PROJECT["project"]["requires-python"] == f">={low},<{high}"


# --- files -------------------------------------------------------------------------------------


def test_readme_tree_is_the_tree():
    tree = re.search(
        r"## What is where\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[1]
    listed, folder = set(), ""
    for line in tree.splitlines():
        for _, name in re.findall(r"(?:^|   )( *)([\w./-]+\.\w+|[\w./]+/)(?= |$)", line)[:2]:
            if name.endswith("/") and not line.startswith(" "):
                folder = name
            listed.add(name if not line.startswith(" ") else folder + name)
    missing = sorted(name for name in listed if not (ROOT / name).exists())
    assert not missing, f"README names files that are not there: {missing}"
    unnamed = (
        {f"stage_lite/{f.name}" for f in PACKAGE.glob("*.py")} - listed - {"stage_lite/__init__.py"}
    )
    assert not unnamed, f"README's tree leaves out {sorted(unnamed)}"


def test_makefile_calls_files_that_exist():
    text = (ROOT / "Makefile").read_text()
    for name in re.findall(r"\$\(RUN\) ([\w/]+\.py)", text):
        assert (ROOT / name).is_file(), f"make calls {name}, which is not there"
    for target in ("demo", "test", "lint", "lab", "data", "train-nano", "bench", "clean"):
        assert re.search(rf"^{target}:", text, re.MULTILINE), f"no target {target}"


def test_ci_script():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert "make test" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


def test_licences_and_citation():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "Stage Lite contributors" in (ROOT / "LICENSE").read_text()
    note = (ROOT / "LICENSES.md").read_text()
    for word in ("weights", "data_samples", "CC-BY-NC", "FluidR3", "MMA", "MoisesDB"):
        assert word in note
    citation = (ROOT / "CITATION.cff").read_text()
    assert "arXiv:2306.05284" in citation and "arXiv:2504.05690" in citation


def test_no_package_index_is_named():
    """pip's own settings decide where packages come from."""
    for name in (
        "Makefile",
        "requirements.txt",
        "requirements-nodeps.txt",
        "environment.yml",
        ".ci/run",
    ):
        assert not re.search(r"index-url\s*=?\s*http|find-links", (ROOT / name).read_text()), name


# --- code --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_source_rules(file):
    text = file.read_text()
    assert file.name != "utils.py"
    assert ast.get_docstring(ast.parse(text)), "no docstring at the top"
    names = imports(file)
    if file.name == "torch_file.py":  # audiocraft's files: tensors and plain values only
        assert names & {"pickle"} and text.count("UnpicklingError  # the name of an error") == 1
        assert re.findall(r"torch\.load\(.*\)", text) == [
            'torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)'
        ]
    else:
        assert not names & {"pickle", "cloudpickle", "joblib"}, "no pickle"
        assert "torch.load" not in text, "no pickle"
    if file.name != "upstream.py":
        assert "audiocraft" not in {n.partition(".")[0] for n in names}, "only upstream.py may"
    for widgets in ("ipywidgets", "anywidget", "stage_widgets"):
        assert widgets not in names


def test_arrows_run_downwards():
    """No two files import each other, not even in a roundabout way, and the top files come last."""
    uses = {
        file.stem: {n.split(".")[1] for n in imports(file) if n.startswith("stage_lite.")}
        for file in PACKAGE.glob("*.py")
        if file.stem != "__init__"
    }
    list(graphlib.TopologicalSorter(uses).static_order())  # raises CycleError with the circle
    for rank, name in enumerate(TOP):
        above = set(TOP[:rank]) & uses.get(name, set())
        assert not above, f"{name}.py imports {sorted(above)} from above it"
    for name in uses.keys() - set(TOP):
        above = set(TOP) & uses[name]
        assert not above, f"{name}.py imports {sorted(above)} from above it"


def test_no_file_of_audiocraft_is_copied():
    distribution = importlib.metadata.distribution("audiocraft")
    theirs = {
        hashlib.sha256(Path(distribution.locate_file(f)).read_bytes()).hexdigest()
        for f in distribution.files
        if f.suffix == ".py" and Path(distribution.locate_file(f)).stat().st_size > 100
    }
    ours = {hashlib.sha256(f.read_bytes()).hexdigest(): f.name for f in SOURCES}
    assert not set(ours) & theirs


# --- the wheel ---------------------------------------------------------------------------------


def test_every_folder_of_code_is_a_package_of_the_wheel():
    folders = {file.parent.relative_to(ROOT).as_posix().replace("/", ".") for file in SOURCES}
    packages = set(PROJECT["tool"]["setuptools"]["packages"])
    assert packages == folders | {"stage_widgets"}


def test_wheel_holds_the_weights(tmp_path):
    """A wheel built from the repository brings the models along, and they load from it."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
         "pyproject.toml", "README.md", "LICENSE", "stage_lite", "widgets"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git clone")
    for name in filter(None, tracked.stdout.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", tmp_path, source], check=True, capture_output=True)
    wheel = next(tmp_path.glob("stage_lite-*.whl"))
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
        opened.extractall(tmp_path / "installed")
    shipped = {
        f.relative_to(ROOT).as_posix() for f in (PACKAGE / "pretrained").rglob("*") if f.is_file()
    }
    assert shipped <= inside
    assert "stage_lite/__main__.py" in inside
    assert not any(name.startswith("tests/") for name in inside)
    if "stage_lite/pretrained/nano/lm.safetensors" not in inside:
        pytest.skip("no trained model in this clone yet")
    code = "import stage_lite as sl; m = sl.load('nano'); print(sl.__file__, m.config.name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and "nano" in done.stdout
