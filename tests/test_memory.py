"""Free memory: of the machine, of a container in either version of control groups, of a GPU."""

import pytest
import torch

from stage_lite import memory
from stage_lite.errors import StageLiteError
from stage_lite.generate import generate_codes


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A made-up machine with 8 GB free: (folder of control groups, write its lines for us)."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    groups = tmp_path / "cgroup"
    groups.mkdir()
    own = tmp_path / "own"
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUPS", own)
    monkeypatch.setattr(memory, "GROUPS", groups)
    return groups, own


def v2(folder, limit, used, inactive=0, active=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    stat = f"anon {used}\ninactive_file {inactive}\nactive_file {active}\n"
    (folder / "memory.stat").write_text(stat)


def v1(folder, limit, used, inactive=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 5\ninactive_file {inactive}\nactive_file 0\n")


def test_this_machine():
    assert memory.available_bytes() > 50e6
    assert memory.available_bytes("meta") is None
    assert torch.cuda.is_available() or memory.available_bytes("cuda") is None


def test_without_a_container_it_is_the_machines(system):
    groups, own = system
    assert memory.available_bytes() == 8_000_000 * 1024
    own.write_text("0::/user.slice\n")
    v2(groups / "user.slice", "max", 5)
    assert memory.available_bytes() == 8_000_000 * 1024


def test_version_2(system):
    """Its limit counts; files that the system keeps in memory are free."""
    groups, own = system
    v2(groups, 1_000_000, 900_000, inactive=200_000, active=100_000)
    assert memory.available_bytes() == 400_000  # no /proc/self/cgroup: the root is the container's
    own.write_text("0::/\n")
    assert memory.available_bytes() == 400_000
    v2(groups, 1_000_000, 1_200_000)
    assert memory.available_bytes() == 0


def test_the_groups_above_count_too(system):
    groups, own = system
    own.write_text("0::/pod/work\n")
    v2(groups / "pod", 3_000_000, 1_000_000)
    v2(groups / "pod/work", 2_500_000, 100_000)
    v2(groups / "pod/other", 10, 5)  # another's
    assert memory.available_bytes() == 2_000_000
    v2(groups / "pod/work", 1_000_000, 100_000)
    assert memory.available_bytes() == 900_000


def test_version_1(system):
    groups, own = system
    own.write_text("9:name=systemd:/x\n4:memory:/docker/abc\n2:cpu,cpuacct:/\n0::/\n")
    v1(groups / "memory", 2**63 - 4096, 10)  # no limit
    v1(groups / "memory/docker/abc", 2_000_000, 500_000, inactive=100_000)
    assert memory.available_bytes() == 1_600_000
    own.write_text("4:memory:/../elsewhere\n")  # the host's path: only the root is seen
    assert memory.available_bytes() == 8_000_000 * 1024
    v1(groups / "memory", 700_000, 0)
    assert memory.available_bytes() == 700_000


@pytest.mark.parametrize("broken", ["", "max max\n", "many\n"])
def test_broken_files_are_passed_over(system, broken):
    groups, own = system
    own.write_text("nonsense\n0::/\n")
    v2(groups, 1_000_000, 0)
    (groups / "memory.max").write_text(broken)
    assert memory.available_bytes() == 8_000_000 * 1024


def test_where_there_is_no_proc(system, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_from_psutil", lambda: 123)
    assert memory.available_bytes() == 123


def test_what_is_needed_and_what_is_there(monkeypatch):
    there = {"cpu": int(2e9), "cuda": int(1e9)}
    monkeypatch.setattr(memory, "available_bytes", lambda d="cpu": there[torch.device(d).type])
    memory.check_memory(int(1.6e9), "it", "cpu")
    with pytest.raises(StageLiteError, match="it needs 2.3 GB of memory, 2.0 GB are free. Try: a"):
        memory.check_memory(int(2e9), "it", "cpu")
    with pytest.raises(StageLiteError, match="it needs 1.8 GB of memory of cuda, 1.0 GB are free"):
        memory.check_memory(int(1.5e9), "it", "cuda")
    with pytest.raises(StageLiteError, match="training step, beside the weights, needs 3.0 GB of"):
        memory.check_training_memory(int(3e9), "cpu")


def test_a_cache_that_does_not_fit(tiny_model, monkeypatch):
    """Said before anything is allocated."""
    settings = {"descriptions": ["drums"] * 3, "n_frames": 40, "seed": 0}
    codes = generate_codes(tiny_model.lm, None, **settings).codes
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000)
    with pytest.raises(
        StageLiteError, match=r"the cache of 6 rows of 4\d steps needs .* MB of mem"
    ):
        generate_codes(tiny_model.lm, None, **settings)
    monkeypatch.setattr(memory, "available_bytes", lambda device: None)
    assert torch.equal(generate_codes(tiny_model.lm, None, **settings).codes, codes)
