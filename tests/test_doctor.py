"""The doctor: runs on a sick machine, says one sentence and one command per trouble."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stage_lite
from stage_lite import doctor, files, shipped
from stage_lite.doctor import Finding, _within, examine, report

ROOT = Path(stage_lite.__file__).parents[1]


def run_doctor(before: str = "") -> subprocess.CompletedProcess:
    """`python -m stage_lite doctor` in a process of its own, after some lines of Python."""
    code = f"import sys\n{before}\nfrom stage_lite.__main__ import main\nsys.exit(main(['doctor']))"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def line(text: str, what: str) -> str:
    return next(x for x in text.splitlines() if x[6:].startswith(what))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {f.what: f for f in findings}


def pretend_versions(monkeypatch, **versions: str | None):
    """Let some packages have another version; None is not installed."""
    real = importlib.metadata.version

    def version(name):
        if name in versions:
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_this_environment_is_well():
    findings = by_name(examine())
    bad = {
        f.what: f.value for f in findings.values() if f.state == "bad" and "weights" not in f.what
    }
    assert not bad
    assert {
        "Python",
        "torch",
        "torchaudio",
        "audiocraft",
        "transformers",
        "soundfile",
        "librosa",
    } <= set(findings)
    assert {"ffmpeg", "fluidsynth", "mma", "chromium", "threads", "memory"} <= set(findings)


@pytest.mark.parametrize("blocked", ["torch", "audiocraft", "torchaudio"])
def test_a_package_that_cannot_be_imported_is_named_and_nothing_breaks(blocked):
    done = run_doctor(f"sys.modules[{blocked!r}] = None")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert line(done.stdout, blocked).startswith("BAD")
    assert "pip install" in done.stdout
    assert blocked in done.stdout.splitlines()[-1]


def test_missing_packages_get_the_command_that_brings_them(monkeypatch):
    pretend_versions(monkeypatch, torch=None, audiocraft=None, librosa=None)
    findings = by_name(examine())
    for name in ("torch", "audiocraft", "librosa"):
        assert findings[name].state == "bad"
        assert findings[name].value == "not installed"
    assert findings["audiocraft"].mend == "python -m pip install --no-deps audiocraft==1.3.0"
    assert findings["librosa"].mend == 'python -m pip install "librosa>=0.11,<2"'
    assert "torch>=2.9" in findings["torch"].mend


def test_versions_out_of_range_are_bad(monkeypatch):
    pretend_versions(monkeypatch, torch="2.1.0", librosa="2.0.0")
    findings = by_name(examine())
    assert findings["torch"].value == "2.1.0; expected >=2.9"
    assert findings["librosa"].value == "2.0.0; expected >=0.11,<2"


def test_a_wrong_audiocraft_is_bad(monkeypatch):
    from stage_lite import upstream

    upstream.audiocraft_classes.cache_clear()
    pretend_versions(monkeypatch, audiocraft="1.0.0")
    finding = by_name(examine())["audiocraft"]
    assert finding.state == "bad"
    assert "1.3.0" in finding.mend
    monkeypatch.undo()
    upstream.audiocraft_classes.cache_clear()


def test_a_python_out_of_range_is_bad(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON_BELOW", (3, 11))
    finding = by_name(examine())["Python"]
    assert finding.state == "bad"
    assert "3.11 to 3.13" in finding.value


def test_missing_programs_are_optional(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    findings = by_name(examine())
    assert findings["mma"].state == "optional"
    assert "make data" in findings["mma"].value


def test_broken_and_missing_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "PRETRAINED", tmp_path)
    assert by_name(examine())["weights"].state == "bad"
    folder = tmp_path / "nano"
    folder.mkdir()
    (folder / "lm.safetensors").write_bytes(b"half of it")
    (folder / "config.json").write_text('{"sha256": {"lm.safetensors": "00"}}')
    finding = by_name(examine())["weights nano"]
    assert finding.state == "bad"
    assert "lm.safetensors is not the file" in finding.mend
    digest = files.sha256_of(folder / "lm.safetensors")
    (folder / "config.json").write_text(f'{{"sha256": {{"lm.safetensors": "{digest}"}}}}')
    finding = by_name(examine())["weights nano"]
    assert finding.state == "ok"
    assert digest[:12] in finding.value


def test_report_shows_every_finding_and_the_verdict():
    text = report([Finding("a", "ok", "1"), Finding("bb", "bad", "2", "do this")])
    assert text.splitlines()[0] == "ok    a   1"
    assert "-> do this" in text
    assert text.endswith("1 to mend: bb")
    many = [Finding(name, "bad", "not installed") for name in "abcdef"]
    assert "may be another Python" in report(many)
    assert "may be another Python" not in report(many[:2])
    assert report([Finding("a", "ok", "1")]).endswith("Everything that Stage Lite needs is here.")


@pytest.mark.parametrize(
    ("version", "specifier", "expected"),
    [
        ("2.13.0+cpu", ">=2.9", True),
        ("2.8.1", ">=2.9", False),
        ("0.11.0", ">=0.11,<2", True),
        ("2.0.0", ">=0.11,<2", False),
        ("1.3.0", "==1.3", True),
        ("1.3.1", "==1.3", False),
        ("5.0.0rc1", "", True),
    ],
)
def test_ranges(version, specifier, expected):
    assert _within(version, specifier) is expected
