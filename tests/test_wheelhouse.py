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


def test_what_only_tests_and_site_need_stays_out(tmp_path):
    tested, student = wheelhouse.requirements(), wheelhouse.student_requirements()
    names = {line.split("==")[0] for line in student}
    assert set(student) < set(tested) and student == [line for line in tested if line in student]
    for name in ("torch", "audiocraft", "jupyterlab", "anywidget", "transformers", "llvmlite"):
        assert name in names
    for name in ("pytest", "playwright", "ruff", "sphinx", "uv", "docutils", "pluggy"):
        assert name not in names
    wheel(tmp_path, "ruff-0.1")
    kept = wheel(tmp_path, "nvidia_cublas-12")  # what torch's CUDA build brings
    assert wheelhouse.chosen_wheels(tmp_path, ["torch==1"], ["torch==1", "ruff==0.1"]) == [kept]


def test_what_every_package_of_the_kit_needs_is_in_it():
    names = {wheelhouse._plain(line).split("==")[0] for line in wheelhouse.student_requirements()}
    assert wheelhouse._with_needs(sorted(names)) - names <= {"setuptools", "pip", "wheel"}


def test_the_kits_requirements_are_cut_down(tmp_path):
    text = "# one\n\n# What it imports\na==1\nb==2\n\n# The site\nsphinx==9\n\n# More\nc==3\n"
    (tmp_path / "requirements.txt").write_text(text)
    wheelhouse.pack(tmp_path / "kit.zip", tmp_path, ["requirements.txt"], [], ["a==1", "c==3"])
    with zipfile.ZipFile(tmp_path / "kit.zip") as kit:
        cut = kit.read("stage-lite/requirements.txt").decode()
    assert cut == "# one\n\n# What it imports\na==1\n\n# More\nc==3\n"


def test_the_kit_is_what_was_committed(tmp_path, capsys):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path / "clone")]
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "kept.txt").write_text("as committed")
    for words in (["init", "-q"], ["add", "kept.txt"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "clone" / "kept.txt").write_text("half written")
    (tmp_path / "clone" / "new.txt").write_text("new")
    assert wheelhouse.committed_files(tmp_path / "out", tmp_path / "clone") == ["kept.txt"]
    assert (tmp_path / "out" / "kept.txt").read_text() == "as committed"
    assert "not in the kit: 2 files" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="from a git clone"):
        wheelhouse.committed_files(tmp_path / "out", tmp_path / "none")


def test_without_network_a_machine_still_reaches_itself():
    prefix = wheelhouse.without_network()
    if not prefix:
        pytest.skip("the network cannot be taken away here")
    home = "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    away = "socket.create_connection(('192.0.2.1', 9), timeout=2)"
    for code, works in ((home, True), (away, False)):
        command = [*prefix, sys.executable, "-c", f"import socket; {code}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode == 0) == works, done.stderr
        assert works or "unreachable" in done.stderr


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
