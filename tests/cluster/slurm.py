"""A real SLURM on one machine: two nodes of four stand-in GPUs, for as long as a test session lasts.

Debian's packages are fetched and unpacked into a folder; nothing is installed, no privilege is needed. Daemons run in
the background without systemd. ``sweep`` ends them and all that they started, even if pytest itself is killed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.places import (
    FREEZER,
    Place,
    UnavailableError,
    cgroup_setup,
    check_cgroups,
    connect,
    host_setup,
    loopback_setup,
)

_PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins"),
    *("munge", "libmunge2", "libhwloc15", "liblua5.1-0"),
)
# Character devices that every machine has stand for GPUs.
_GPUS = "/dev/null,/dev/zero,/dev/full,/dev/urandom"

_CONFIGURATION = """\
ClusterName=galpaca
SlurmctldHost={controller}
# Lightning makes a port of its last digits: SLURMs side by side must not have the same jobs.
FirstJobId={first_job}
SlurmctldPort={port}
AuthType=auth/munge
# A requeued job waits as long as a credential may still be in use; it takes no less than this.
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
{parameters}PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait={kill_wait_seconds}
GresTypes=gpu
NodeName=node[1-2] {nodes} CPUs=64 RealMemory=500000 Gres=gpu:4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_seconds}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Kind:
    """What a SLURM is like.

    Attributes:
        process_tracking: ``linuxproc`` signals every process of a job, ``cgroup`` the tasks of srun only, as on
            production clusters; needs root and control groups of version 1.
        network: the machine's; ``none`` but loopback; ``two hosts``, each node with a name and a network of its own.
            The last two need root.
        preempt_user_signal: a job that must make room gets the signal it requested with ``--signal``, too.
        grace_seconds: from its first signal on until it is killed.
        kill_wait_seconds: from SIGTERM to SIGKILL of a job that is cancelled or out of time.
    """

    process_tracking: Literal["linuxproc", "cgroup"] = "linuxproc"
    network: Literal["machine", "none", "two hosts"] = "machine"
    preempt_user_signal: bool = True
    grace_seconds: int = 60
    kill_wait_seconds: int = 20


_ADDRESSES = ("10.99.0.1", "10.99.0.2")
_CONTROLLER = "10.99.0.254"


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
        folder: for all that it writes, removed in the end; short, since it holds a socket.
        prefix: of ``fetch``.
    """

    def __init__(self, folder: Path, prefix: Path, kind: Kind | None = None) -> None:
        self.folder, self.prefix, self.kind = folder, prefix, kind or Kind()
        self._places: list[Place] = []
        self._cgroup = FREEZER / folder.name if self.kind.process_tracking == "cgroup" else None
        self._sweeper: subprocess.Popen[str] | None = None

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
        UnavailableError: this kind cannot be had here, or the nodes did not come up.
        """
        for name in ("state", "run", "log", "spool/node1", "spool/node2", "cgroup/freezer"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self._start_sweeper()
        if self._cgroup:
            check_cgroups()
            self._cgroup.mkdir()
        self._make_places()
        self._configure()
        run = self.folder / "run"
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        munge = [f"--{option}={run / name}" for option, name in files.items()]
        self.run("munged", *munge, f"--log-file={self.folder / 'log' / 'munged.log'}")
        self.run("slurmctld")
        for number, node in enumerate(("node1", "node2"), start=1):
            slurmd = ("slurmd", "-N", node, "-d", str(self.prefix / "usr" / "sbin" / "slurmstepd"))
            self._run_in(self._places[number], *slurmd)
        deadline = time.monotonic() + 20
        while set(self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()) != {"node1 idle", "node2 idle"}:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the nodes did not come up: {self.run('sinfo', '-N', '-l')}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kills all that it started, jobs too, and removes all that it wrote."""
        if self._sweeper is None:
            return
        _, message = self._sweeper.communicate("")
        code = self._sweeper.returncode
        self._sweeper = None
        for place in self._places:
            place.close()
        assert code == 0, message

    def _start_sweeper(self) -> None:
        sweep = [sys.executable, "-I", str(Path(__file__).with_name("sweep.py")), str(self.folder)]
        self._sweeper = subprocess.Popen(
            [*sweep, *([str(self._cgroup)] if self._cgroup else [])],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what interrupts pytest must not interrupt this
        )

    def _make_places(self) -> None:
        """The controller's and each node's, which are one and the same unless there are two hosts."""
        setup = cgroup_setup(self._cgroup, self.folder / "cgroup" / "freezer") if self._cgroup else []
        if self.kind.network != "two hosts":
            own_network = self.kind.network == "none"
            lines = [*setup, *(loopback_setup() if own_network else [])]
            place = self._place(lines or None, network=own_network)
            self._places = [place] * 3
            return
        names = {"ctl": _CONTROLLER, "node1": _ADDRESSES[0], "node2": _ADDRESSES[1]}
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{names[name]} {name}\n" for name in names))
        for name in names:
            self._places.append(self._place([*host_setup(name, hosts), *setup], network=True))
        connect(self._places[0], self._places[1:], _ADDRESSES, _CONTROLLER)

    def _place(self, setup: list[str] | None, *, network: bool) -> Place:
        return Place(setup, network=network, environment=self.environment)

    def _configure(self) -> None:
        key = self.folder / "run" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        (self.folder / "gres.conf").write_text(f"NodeName=node[1-2] Name=gpu File={_GPUS}\n")
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={self.folder}/cgroup\n")
        port = 26_000 if self.kind.network != "machine" else _free_ports(3)
        one_host = f"NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port + 1}-{port + 2}]"
        two_hosts = f"NodeAddr={','.join(_ADDRESSES)} Port={port + 1}"
        are_two = self.kind.network == "two hosts"
        configuration = _CONFIGURATION.format(
            folder=self.folder,
            user=getpass.getuser(),
            plugins=self.prefix / "usr" / "lib" / f"{platform.machine()}-linux-gnu" / "slurm-wlm",
            controller=f"ctl({_CONTROLLER})" if are_two else "localhost(127.0.0.1)",
            port=port,
            nodes=two_hosts if are_two else one_host,
            first_job=1000 + secrets.randbelow(8000),
            parameters="SlurmctldParameters=preempt_send_user_signal\n" if self.kind.preempt_user_signal else "",
            process_tracking=self.kind.process_tracking,
            grace_seconds=self.kind.grace_seconds,
            kill_wait_seconds=self.kind.kill_wait_seconds,
        )
        (self.folder / "slurm.conf").write_text(configuration)

    def run(self, *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Runs one of SLURM's programs where its controller is, and returns what it prints."""
        return self._run_in(self._places[0], *command, environment=environment, cwd=cwd)

    def _run_in(
        self, place: Place, *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        env = {**os.environ, **self.environment, **(environment or {})}
        return _run(place.command(command, cwd), cwd=cwd, env=env)

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
            TimeoutError: it is not in time; with the last state.
        """
        deadline = time.monotonic() + seconds
        while (facts := self.facts(job)).get("JobState") not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {facts.get('JobState')} ({facts.get('Reason')}), not {states}")
            time.sleep(0.4)
        return facts


def _run(command: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
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


@contextlib.contextmanager
def running(prefix: Path, kind: Kind | None = None) -> Iterator[Slurm]:
    """A SLURM, gone afterwards with all that it ran.

    Raises:
        UnavailableError: it cannot be had here.
    """
    # Not pytest's folder: the path of a socket must be short.
    slurm = Slurm(Path(tempfile.mkdtemp(prefix="galpaca-slurm-")), prefix, kind)
    try:
        try:
            slurm.start()
        except (subprocess.SubprocessError, OSError) as error:
            raise UnavailableError(f"SLURM does not start here: {error}") from error
        yield slurm
    finally:
        slurm.stop()
