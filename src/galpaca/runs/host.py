"""The machine that a process runs on, and the process in it."""

import ctypes
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from galpaca.formatting import format_bytes


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """What this process, and those that share its limits, can still get without swapping; None where nobody says.

    The least of what the machine has left and what each control group around the process has left: a job rarely has
    the whole node. Cached files count as free, since they make room.

    Args:
        root: of the file system.
    """
    found = list(_left_in_control_groups(root))
    with suppress(OSError, ValueError):
        found.append(_fields(root / "proc/meminfo")["MemAvailable:"] * 1024)
    return max(0, min(found)) if found else None


def _left_in_control_groups(root: Path) -> Iterator[int]:
    """Source: cgroups(7), and the kernel's cgroup-v1/memory.rst and cgroup-v2.rst."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_cache"
        else:
            continue
        group = root / mount / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # no file at the top, "max" where there is no limit
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                yield most - used + _fields(folder / "memory.stat").get(cache, 0)
            if folder == root / mount:
                break


def _fields(path: Path) -> dict[str, int]:
    """Of a file with a name and a number on each line."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1}


def process_age_seconds(pid: int | None = None) -> float | None:
    """Seconds since a process was started, including interpreter startup and imports.

    Args:
        pid: process id on this machine; default: this process.

    Returns:
        None if there is no such process, or if it is a zombie.
    """
    fields = _stat(pid)
    if not fields or fields[0] == "Z":
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def process_state(pid: int) -> str:
    """State letter of a process on this machine (``man proc``); empty if there is no such process."""
    return (_stat(pid) or [""])[0]


def _stat(pid: int | None) -> list[str]:
    """The fields after the program name, which may contain any character."""
    try:
        text = Path(f"/proc/{pid or 'self'}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def total_memory_bytes() -> int | None:
    """Total host memory; None if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


# PR_SET_PDEATHSIG of prctl(2).
_PARENT_DEATH_SIGNAL = 1


def end_with_parent(number: int) -> None:
    """Has the kernel send this process a signal when the thread that started it is gone."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(number))


def describe_disk(path: Path) -> str:
    """``the disk at /scratch has 0 B free of 2.00 GiB``, for the disk that a file is or would be on; empty where nobody
    says.
    """
    with suppress(OSError):
        existing = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        mount = next(one for one in (existing, *existing.parents) if one.is_mount())
        usage = shutil.disk_usage(mount)
        return f"the disk at {mount} has {format_bytes(usage.free)} free of {format_bytes(usage.total)}"
    return ""
