"""Ends all that belongs to one of the tests' SLURMs, as soon as its standard input ends, whichever way pytest ended.

``python sweep.py FOLDER [CGROUP]``: kills every process that was started for the SLURM in that folder, and by it;
namespaces and their mounts go with the last process in them; then removes the control group and the folder.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_DAEMONS = ("slurm", "munged", "srun")


def sweep(folder: Path, cgroup: Path | None, seconds: float = 20) -> list[int]:
    """Returns:
    Processes that could not be ended in time.
    """
    deadline = time.monotonic() + seconds
    while left := processes_of(folder):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if cgroup:
            for state in cgroup.rglob("freezer.state"):  # what is frozen cannot even be killed
                with contextlib.suppress(OSError):
                    state.write_text("THAWED")
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    for group in sorted(cgroup.rglob("*/"), reverse=True) if cgroup else []:
        _remove_group(group)
    if cgroup and cgroup.is_dir():
        _remove_group(cgroup)
    shutil.rmtree(folder, ignore_errors=True)
    return []


def processes_of(folder: Path) -> list[int]:
    """Those with the folder's configuration in their environment, which jobs inherit, and daemons at work in it."""
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _belongs(entry, mark)]


def _belongs(process: Path, mark: bytes) -> bool:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        if state in ("Z", "X"):  # the parent has not read its exit code
            return False
        if mark in (process / "environ").read_bytes().split(b"\0"):
            return True
        # Daemons that write their title over their environment.
        is_daemon = (process / "comm").read_text().startswith(_DAEMONS)
        folder = mark.decode().removeprefix("SLURM_CONF=").removesuffix("slurm.conf")
        return is_daemon and f"{(process / 'cwd').readlink()}/".startswith(folder)
    except OSError:  # gone, or somebody else's
        return False


def _remove_group(group: Path) -> None:
    for _ in range(100):  # killed processes leave it in their own time
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


if __name__ == "__main__":
    sys.stdin.read()
    left = sweep(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    sys.exit(f"processes are left: {left}" if left else 0)
