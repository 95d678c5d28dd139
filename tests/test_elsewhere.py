"""Machines of other people, as far as they can be had here: Colab, Binder, dev container."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = ROOT / "notebooks" / "colab-constraints.txt"


def colab() -> dict[str, str]:
    lines = CONSTRAINTS.read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_colab_has_is_within_our_ranges_so_nothing_is_installed_again():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["notebooks"]]
    ranges = {plain(Requirement(line).name): Requirement(line).specifier for line in wanted}
    checked = 0
    for name, version in colab().items():
        if name in ranges:
            assert version in ranges[name], f"Colab's {name} {version} is not in {ranges[name]}"
            checked += 1
    assert checked >= 7
    from packaging.specifiers import SpecifierSet

    assert "3.13.0" in SpecifierSet(PROJECT["requires-python"])


def test_our_requirements_resolve_beside_what_colab_has():
    uv = shutil.which("uv", path=os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv is not installed: pip install uv")
    command = [uv, "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--extra",
               "notebooks", "--python-version", "3.13", "--python-platform",
               "x86_64-manylinux_2_28", "--constraint", CONSTRAINTS, "pyproject.toml"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode and re.search("fetch|connect|dns|timed out|network", done.stderr, re.I):
        pytest.skip("no package index can be reached")
    assert not done.returncode, done.stderr
    found = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    for name, version in colab().items():
        assert found.get(name, version) == version
    assert found["torch"] == colab()["torch"]


def test_notebooks_install_without_touching_what_is_there():
    """`pip install -e .` takes what is installed if it is within the range; no upgrade is asked."""
    for source in (ROOT / "notebooks" / "src").glob("*.py"):
        for line in source.read_text().splitlines():
            if "pip install" in line:
                assert not re.search(r"--upgrade|-U\b|--force|torch[=><]", line), (
                    source.name,
                    line,
                )


def test_binder_and_dev_container_have_one_environment():
    binder = yaml.safe_load((ROOT / "binder/environment.yml").read_text())
    packages = [p for p in binder["dependencies"] if isinstance(p, str)]
    assert {"pytorch-cpu>=2.9", "torchaudio>=2.9", "python=3.11"} <= set(packages)
    pip = next(p["pip"] for p in binder["dependencies"] if isinstance(p, dict))
    assert pip == ["-e ..[notebooks]"]  # relative to the file, so is what conda's pip takes
    build = (ROOT / "binder/postBuild").read_text()
    assert "--no-deps -r requirements-nodeps.txt" in build
    assert os.access(ROOT / "binder/postBuild", os.X_OK)
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert "binder/environment.yml" in container["postCreateCommand"]
    assert "binder/postBuild" in container["postCreateCommand"]
