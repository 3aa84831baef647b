"""How much memory is left, by the machine and by the limits of a job."""

from pathlib import Path

import pytest

from galpaca.runs.host import available_memory_bytes

GIB = 2**30


def put(root: Path, **files: object) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, proc__meminfo=f"MemTotal: 9 kB\nMemAvailable: {500 * 2**20} kB")  # 500 GiB
    return tmp_path


def group(folder: Path, limit: tuple[str, object], usage: tuple[str, int], stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (limit, usage, ("memory.stat", stat)):
        (folder / name).write_text(f"{value}\n")


def test_without_limits_it_is_the_machine_s(root: Path) -> None:
    assert available_memory_bytes(root) == 500 * GIB
    put(root, proc__self__cgroup="0::/a")
    group(root / "sys/fs/cgroup/a", ("memory.max", "max"), ("memory.current", 7), "file 0")
    assert available_memory_bytes(root) == 500 * GIB


def test_a_job_s_limit_counts_wherever_it_is_above(root: Path) -> None:
    """A job of 64 GiB on a node with 500 free was let go, and killed at its first checkpoint."""
    put(root, proc__self__cgroup="0::/slurm/job_7/step_0")
    group(root / "sys/fs/cgroup/slurm/job_7", ("memory.max", 64 * GIB), ("memory.current", 20 * GIB), f"file {5 * GIB}")
    group(root / "sys/fs/cgroup/slurm/job_7/step_0", ("memory.max", "max"), ("memory.current", GIB), "file 0")
    assert available_memory_bytes(root) == 49 * GIB


def test_the_first_version_of_control_groups(root: Path) -> None:
    put(root, proc__self__cgroup="9:cpu,cpuacct:/x\n4:memory:/slurm/job_7\n0::/init")
    limit, usage = ("memory.limit_in_bytes", 32 * GIB), ("memory.usage_in_bytes", 8 * GIB)
    group(root / "sys/fs/cgroup/memory/slurm/job_7", limit, usage, f"cache 1\ntotal_cache {2 * GIB}")
    assert available_memory_bytes(root) == 26 * GIB


def test_this_machine_has_some() -> None:
    assert (available_memory_bytes() or 0) > 2**20


def test_nobody_says(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) is None
