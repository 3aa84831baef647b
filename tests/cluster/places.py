"""Where programs of the tests' SLURM run: on the machine as it is, or in namespaces that one process holds open.

Nothing of the machine changes: a place has its own network, host name and ``/etc/hosts``, and all of it is gone with
the last process in it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

FREEZER = Path("/sys/fs/cgroup/freezer")


class UnavailableError(Exception):
    """SLURM, or a kind of it, cannot be had here."""


class Place:
    """The machine itself, or namespaces.

    Args:
        setup: of the namespaces, a shell's lines; None stays on the machine.
        network: whether it has a network of its own, which begins with nothing.
        environment: of the process that holds them.

    Raises:
        UnavailableError: namespaces cannot be made here, with the reason.
    """

    def __init__(self, setup: Sequence[str] | None, *, network: bool, environment: Mapping[str, str]) -> None:
        self.holder: subprocess.Popen[str] | None = None
        if setup is None:
            return
        check_namespaces()
        kinds = ["--mount", *(["--net", "--uts"] if network else [])]
        lines = ["set -e", *setup, "echo ready", "exec sleep infinity"]
        self.holder = subprocess.Popen(
            ["unshare", *kinds, "sh", "-c", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        assert self.holder.stdout
        assert self.holder.stderr
        if self.holder.stdout.readline() != "ready\n":
            message = self.holder.stderr.read().strip()
            self.close()
            raise UnavailableError(f"namespaces cannot be made: {message}")

    def command(self, words: Sequence[str], cwd: Path | None = None) -> list[str]:
        """The command that runs a command here."""
        if self.holder is None:
            return list(words)
        enter = ["nsenter", f"--target={self.holder.pid}", "--mount", "--net", "--uts"]
        return [*enter, "env", f"--chdir={cwd or Path.cwd()}", *words]

    def close(self) -> None:
        """After its holder has ended."""
        if self.holder is not None:
            self.holder.wait(10)
            for stream in (self.holder.stdout, self.holder.stderr):
                assert stream
                stream.close()


def check_namespaces() -> None:
    """Raises:
    UnavailableError: this user cannot make them.
    """
    if os.geteuid() != 0:
        raise UnavailableError("namespaces and control groups need root")


def check_cgroups() -> None:
    """Raises:
    UnavailableError: no control groups of the kind that this SLURM can use.
    """
    check_namespaces()
    if not (FREEZER / "cgroup.procs").is_file():
        raise UnavailableError(f"proctrack/cgroup needs control groups of version 1, and there is no {FREEZER}")


def cgroup_setup(cgroup: Path, mounted: Path) -> list[str]:
    """Shows a control group of our own where SLURM expects the top of all."""
    return [f"mount --bind {shlex.quote(str(cgroup))} {shlex.quote(str(mounted))}"]


def loopback_setup() -> list[str]:
    # The second address: glibc takes a machine with only the first one for one without IPv4.
    return ["ip link set lo up", "ip addr add 127.0.0.2/8 dev lo"]


def host_setup(name: str, hosts: Path) -> list[str]:
    """A machine of its own to look at."""
    return [f"hostname {name}", f"mount --bind {shlex.quote(str(hosts))} /etc/hosts", *loopback_setup()]


def connect(controller: Place, nodes: Sequence[Place], addresses: Sequence[str], own_address: str) -> None:
    """Cables from the nodes to a switch in the controller's place."""
    lines = ["set -e", "ip link add br0 type bridge", f"ip addr add {own_address}/24 dev br0", "ip link set br0 up"]
    for number, (node, address) in enumerate(zip(nodes, addresses, strict=True)):
        assert node.holder
        lines += [
            f"ip link add port{number} type veth peer name eth0 netns {node.holder.pid}",
            f"ip link set port{number} master br0 up",
        ]
        inside = f"ip addr add {address}/24 dev eth0 && ip link set eth0 up"
        lines.append(f"nsenter --target={node.holder.pid} --net sh -c {shlex.quote(inside)}")
    done = subprocess.run(controller.command(["sh", "-c", "\n".join(lines)]), capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"hosts cannot be connected: {done.stderr.strip()}")
