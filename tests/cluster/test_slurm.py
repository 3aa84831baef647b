"""The SLURM that tests of the cluster stand on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.conftest import slurm_or_skip
from cluster.places import FREEZER
from cluster.slurm import Kind, Slurm
from cluster.sweep import processes_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

KINDS = (
    Kind(),
    Kind(process_tracking="cgroup"),
    Kind(network="none"),
    Kind(network="two hosts"),
    Kind(process_tracking="cgroup", network="two hosts"),
)
# A job that nothing but SIGKILL ends, with a process that has left its session.
STUBBORN = "trap '' TERM; srun sh -c 'trap \"\" TERM; setsid sleep 500 & sleep 500'"


def name(kind: Kind) -> str:
    return f"{kind.process_tracking}, {kind.network}"


def test_jobs_run_on_both_nodes_with_their_gpus(slurm: Slurm, tmp_path: Path) -> None:
    seen = slurm.run(
        "srun", "-N2", "--gres=gpu:4", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES", cwd=tmp_path
    )
    assert sorted(seen.splitlines()) == ["node1 0,1,2,3", "node2 0,1,2,3"]
    job = slurm.run("sbatch", "--parsable", "--wrap", "exit 3", cwd=tmp_path).strip()
    assert slurm.wait(job, "FAILED", "COMPLETED")["ExitCode"] == "3:0"


def test_two_hosts_have_names_and_networks_of_their_own(slurm_prefix: Path, tmp_path: Path) -> None:
    before = Path("/etc/hosts").read_bytes()
    with slurm_or_skip(slurm_prefix, Kind(network="two hosts")) as slurm:
        ask = "echo $(hostname) $(readlink /proc/self/ns/net) $(getent hosts node1 node2)"
        seen = [line.split() for line in slurm.run("srun", "-N2", "sh", "-c", ask, cwd=tmp_path).splitlines()]
    assert sorted(words[0] for words in seen) == ["node1", "node2"]
    assert len({words[1] for words in seen} | {str(Path("/proc/self/ns/net").readlink())}) == 3
    assert all(words[2:] == ["10.99.0.1", "node1", "10.99.0.2", "node2"] for words in seen)
    assert Path("/etc/hosts").read_bytes() == before


def test_without_a_network_there_is_only_loopback(slurm_prefix: Path, tmp_path: Path) -> None:
    with slurm_or_skip(slurm_prefix, Kind(network="none")) as slurm:
        seen = slurm.run("srun", "cat", "/proc/self/net/dev", cwd=tmp_path)
    assert [line.partition(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]


@pytest.mark.parametrize(
    ("process_tracking", "seen"),
    [("linuxproc", ["child", "task"]), ("cgroup", ["task"])],
    ids=["linuxproc", "cgroup"],
)
def test_whom_a_signal_reaches(slurm_prefix: Path, tmp_path: Path, process_tracking: str, seen: list[str]) -> None:
    """Both ways of production: every process of a task, or the task alone."""
    child = "trap 'echo child >> seen' USR1; touch child; while :; do sleep 0.05; done"
    (tmp_path / "child.sh").write_text(child)
    task = "trap 'echo task >> seen' USR1; sh child.sh & touch task; while :; do wait; done"
    (tmp_path / "task.sh").write_text(task)
    with slurm_or_skip(slurm_prefix, Kind(process_tracking=process_tracking)) as slurm:  # type: ignore[arg-type]
        job = slurm.run("sbatch", "--parsable", "--wrap", "srun sh task.sh", cwd=tmp_path).strip()
        wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "task").exists())
        slurm.run("scancel", "--signal=USR1", job)
        wait_until((tmp_path / "seen").exists)
        time.sleep(0.5)
    assert sorted((tmp_path / "seen").read_text().split()) == seen


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_a_failed_test_leaves_nothing_behind(slurm_prefix: Path, tmp_path: Path, kind: Kind) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    with contextlib.suppress(ZeroDivisionError), slurm_or_skip(slurm_prefix, kind) as slurm:
        job = slurm.run("sbatch", "--parsable", "-N2", "--wrap", STUBBORN, cwd=tmp_path).strip()
        slurm.wait(job, "RUNNING")
        wait_until(lambda: commands(slurm.folder).count("sleep") >= 4)
        namespaces = {(Path("/proc") / str(pid) / "ns/net").readlink() for pid in processes_of(slurm.folder)}
        raise ZeroDivisionError
    assert gone(slurm.folder)
    own = Path("/proc/self/ns/net").readlink()
    assert namespaces != {own} or kind.network == "machine"
    assert (namespaces - {own}).isdisjoint(networks())
    assert Path("/proc/self/mounts").read_text() == mounts


def test_a_killed_pytest_leaves_nothing_behind(slurm_prefix: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cluster.slurm import running\n"
        "with running(Path(sys.argv[1])) as slurm:\n"
        "    slurm.run('sbatch', '--wrap', sys.argv[2], cwd=Path(sys.argv[3]))\n"
        "    print(slurm.folder, flush=True); time.sleep(500)\n"
    )
    line = [sys.executable, "-c", program, str(slurm_prefix), STUBBORN, str(tmp_path)]
    tests = str(Path(__file__).parents[1])
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": tests})
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    if not folder.is_dir():
        pytest.skip("SLURM does not start here")
    wait_until(lambda: commands(folder).count("sleep") >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: gone(folder))


def commands(folder: Path) -> list[str]:
    names = []
    for pid in processes_of(folder):
        try:
            names.append((Path("/proc") / str(pid) / "comm").read_text().strip())
        except OSError:
            continue
    return names


def networks() -> set[Path]:
    """Of all processes of the machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            found.add((entry / "ns/net").readlink())
        except OSError:
            continue
    return found


def gone(folder: Path) -> bool:
    return not processes_of(folder) and not folder.exists() and not (FREEZER / folder.name).exists()


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.02)
