"""files.py: whole or not at all, and what it was."""

import pytest

from stage_lite.errors import StageLiteError
from stage_lite.files import (
    atomic,
    read_registry,
    sha256_of,
    verify_registry,
    write_atomic,
    write_registry,
)


def test_an_interrupted_write_changes_nothing(tmp_path):
    file = tmp_path / "a.txt"
    write_atomic(file, "old")
    with pytest.raises(KeyboardInterrupt), atomic(file) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with atomic(file) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        temporary.write_text("new")
    assert file.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_registry_is_what_sha256sum_writes(tmp_path):
    write_atomic(tmp_path / "a.txt", b"abc")
    (tmp_path / "sub").mkdir()
    write_atomic(tmp_path / "sub" / "b c.bin", b"")
    write_registry(tmp_path)
    lines = (tmp_path / "registry.txt").read_text().splitlines()
    assert lines[0].startswith("ba7816bf") and lines[0].endswith("  a.txt")
    assert read_registry(tmp_path)["sub/b c.bin"] == sha256_of(tmp_path / "sub" / "b c.bin")
    write_registry(tmp_path)  # does not list itself
    verify_registry(tmp_path)
    assert len(read_registry(tmp_path)) == 2


def test_every_difference_is_named(tmp_path):
    with pytest.raises(StageLiteError, match=r"registry.txt is missing"):
        verify_registry(tmp_path)
    file = tmp_path / "a.txt"
    write_atomic(file, b"abc")
    write_registry(tmp_path)
    with pytest.raises(StageLiteError, match=r"b.txt has no line in"):
        verify_registry(tmp_path, ["b.txt"])
    file.write_bytes(b"abd")
    with pytest.raises(StageLiteError, match=r"a.txt is broken: its sha256 is .*git checkout"):
        verify_registry(tmp_path)
    file.unlink()
    with pytest.raises(StageLiteError, match=r"a.txt is missing, yet registry.txt lists it"):
        verify_registry(tmp_path)
