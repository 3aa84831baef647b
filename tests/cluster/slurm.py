"""A real SLURM on one machine: two nodes of four stand-in GPUs, for as long as a test session lasts.

Debian's packages are fetched and unpacked into a folder; nothing is installed, no privilege is needed. Daemons run in
the background without systemd and are ended by the ids that they wrote.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins"),
    *("munge", "libmunge2", "libhwloc15", "liblua5.1-0"),
)
# Character devices that every machine has stand for GPUs.
_GPUS = "/dev/null,/dev/zero,/dev/full,/dev/urandom"

_CONFIGURATION = """\
ClusterName=galpaca
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
# A requeued job waits as long as a credential may still be in use.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
PluginDir={plugins}
ProctrackType=proctrack/{process_tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=20
GresTypes=gpu
NodeName=node[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=64 RealMemory=500000 Gres=gpu:4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class UnavailableError(Exception):
    """SLURM cannot be had here."""


def fetch(prefix: Path) -> None:
    """Unpacks SLURM below a folder, once.

    Raises:
        UnavailableError: there is no network, or this is no Debian.
    """
    if (prefix / "complete").exists():
        return
    packages = prefix / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    try:
        _run(["apt-get", "download", *_PACKAGES], cwd=packages)
    except (OSError, subprocess.CalledProcessError):
        # An image without package lists: fetched into a folder of our own, which needs no privilege.
        lists = prefix / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::lists={lists}", "-o", "Debug::NoLocking=1"]
        try:
            _run(["apt-get", *options, "update"], cwd=packages)
            _run(["apt-get", *options, "download", *_PACKAGES], cwd=packages)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"Debian's packages of SLURM cannot be fetched: {error}") from None
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(prefix)])
    programs = prefix / "usr" / "sbin"
    for name in ("slurmctld", "slurmd", "slurmstepd"):
        if not (programs / name).exists():  # under Debian's own names, GPUs vanish
            (programs / name).symlink_to(f"{name}-wlm")
    (prefix / "complete").touch()


class Slurm:
    """Two nodes under one controller.

    Args:
        folder: for all that it writes; short, since it holds a socket.
        prefix: of ``fetch``.
        process_tracking: ``linuxproc`` signals every process of a job, ``cgroup`` the tasks of srun only.
    """

    def __init__(self, folder: Path, prefix: Path, process_tracking: str = "linuxproc") -> None:
        self.folder, self.prefix, self.process_tracking = folder, prefix, process_tracking

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell on a login node has."""
        libraries = self.prefix / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        return {
            "PATH": os.pathsep.join([str(self.prefix / "usr/bin"), str(self.prefix / "usr/sbin"), os.environ["PATH"]]),
            "LD_LIBRARY_PATH": f"{libraries}:{libraries / 'slurm-wlm'}",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    def start(self) -> None:
        """Raises:
        UnavailableError: the nodes did not come up.
        """
        for name in ("state", "run", "log", "spool/node1", "spool/node2"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "run" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        (self.folder / "gres.conf").write_text(f"NodeName=node[1-2] Name=gpu File={_GPUS}\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        port = _free_ports(3)
        (self.folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                user=getpass.getuser(),
                plugins=self.prefix / "usr" / "lib" / f"{platform.machine()}-linux-gnu" / "slurm-wlm",
                process_tracking=self.process_tracking,
                port=port,
                first=port + 1,
                last=port + 2,
            )
        )
        run = self.folder / "run"
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        munge = [f"--{option}={run / name}" for option, name in files.items()]
        self.run("munged", *munge, f"--log-file={self.folder / 'log' / 'munged.log'}")
        self.run("slurmctld")
        for node in ("node1", "node2"):
            self.run("slurmd", "-N", node, "-d", str(self.prefix / "usr" / "sbin" / "slurmstepd"))
        deadline = time.monotonic() + 20
        while set(self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()) != {"node1 idle", "node2 idle"}:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the nodes did not come up: {self.run('sinfo', '-N', '-l')}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Cancels all jobs and ends the daemons."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("scancel", f"--user={getpass.getuser()}")
        for name in ("slurmd.node1", "slurmd.node2", "slurmctld", "munged"):
            path = self.folder / "run" / f"{name}.pid"
            if path.exists() and (text := path.read_text().strip()):
                _end(int(text))

    def run(self, *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Runs one of SLURM's programs and returns what it prints."""
        return _run(list(command), cwd=cwd, env={**os.environ, **self.environment, **(environment or {})})

    def state(self, job: str) -> str:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ... of a job that the controller still knows."""
        return self.facts(job).get("JobState", "UNKNOWN")

    def facts(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` tells."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 120) -> dict[str, str]:
        """Waits until a job is in one of these states.

        Raises:
            TimeoutError: it is not in time; told with the last state.
        """
        deadline = time.monotonic() + seconds
        while (facts := self.facts(job)).get("JobState") not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {facts.get('JobState')} ({facts.get('Reason')}), not {states}")
            time.sleep(0.2)
        return facts


def _run(command: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def _free_ports(number: int) -> int:
    """The first of consecutive free ports; not where Lightning's processes meet, from 15000 to 24999."""
    for first in range(26_000 + os.getpid() % 2_000, 32_000, number):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise UnavailableError("no free ports")


def _end(pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _is_alive(pid):
                return
            time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    """A zombie, whose parent has not asked for it, is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
