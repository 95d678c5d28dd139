"""The classroom kit: what goes into the zip. `make wheelhouse` tries a whole one."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
sys.path.insert(0, str(ROOT / "dev"))
import wheelhouse  # noqa: E402


def wheel(folder: Path, name: str) -> Path:
    path = folder / f"{name}-py3-none-any.whl"
    path.write_bytes(name.encode())
    return path


def test_requirements_are_the_tested_set_with_audiocraft():
    wanted = wheelhouse.requirements()
    assert "audiocraft==1.3.0" in wanted
    assert any(line.startswith("torch==") for line in wanted)
    assert all("==" in line and "#" not in line for line in wanted)


def test_only_the_pinned_version_goes_in(tmp_path):
    wheel(tmp_path, "julius-0.2.7")
    kept = wheel(tmp_path, "julius-0.2.8")
    cpu = wheel(tmp_path, "torch-2.13.0+cpu")
    tool = wheel(tmp_path, "setuptools-80.0")  # no pin: what an installation needs itself
    chosen = wheelhouse.chosen_wheels(tmp_path, ["julius==0.2.8", "torch==2.13.0"])
    assert chosen == sorted([kept, cpu, tool])


def test_what_has_no_wheel_is_named(tmp_path):
    wheel(tmp_path, "mir_eval-0.8.2")
    wheel(tmp_path, "torch-2.13.0+cpu")
    wanted = ["mir-eval==0.8.2", "torch==2.13.0", "av==18.1.0"]
    assert wheelhouse.missing_wheels(tmp_path, wanted) == ["av==18.1.0"]


def test_the_zip_holds_project_wheels_and_their_checksums(tmp_path):
    one = wheel(tmp_path, "julius-0.2.8")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "Makefile").write_text("demo:\n")
    out = tmp_path / "out" / "kit.zip"
    wheelhouse.pack(out, tmp_path / "project", ["Makefile"], [one])
    with zipfile.ZipFile(out) as kit:
        names = set(kit.namelist())
        assert {"stage-lite/Makefile", f"stage-lite/wheels/{one.name}"} <= names
        digest = hashlib.sha256(one.read_bytes()).hexdigest()
        assert kit.read("stage-lite/wheels/SHA256").decode() == f"{digest}  {one.name}\n"
        assert b"another Python, needs a kit" in kit.read("stage-lite/wheels/README.txt")
    assert not list(out.parent.glob("*.part"))


def test_a_kit_that_fails_leaves_no_zip(tmp_path):
    with pytest.raises(FileNotFoundError):
        wheelhouse.pack(tmp_path / "kit.zip", tmp_path, ["not there"], [])
    assert not (tmp_path / "kit.zip").exists()


def test_the_makefile_takes_wheels_that_lie_beside_it(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.txt").write_text("torch==1.0\n")
    words = "$$PIP_NO_INDEX $$PIP_FIND_LINKS"
    (tmp_path / "probe.mk").write_text(f"include Makefile\nprobe:\n\t@echo {words}\n")

    def probe() -> str:
        command = ["make", "-s", "-f", "probe.mk", "probe"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    if not subprocess.run(["sh", "-c", "command -v make"], capture_output=True).stdout:
        pytest.skip("no make here")
    assert not probe().startswith("1 ")
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels", "julius-0.2.8")
    assert probe() == f"1 {tmp_path / 'wheels'}"
