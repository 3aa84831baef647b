"""The machine that a process runs on, and the process in it."""

import os
import time
from pathlib import Path


def available_memory_bytes() -> int | None:
    """What Linux would hand out without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def process_age_seconds(pid: int | None = None) -> float | None:
    """Since a process was started, interpreter and imports included.

    Args:
        pid: of this machine; by default this process.

    Returns:
        None where there is none, or it is dead and nobody has asked for its exit code yet.
    """
    fields = _stat(pid)
    if not fields or fields[0] == "Z":
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def process_state(pid: int) -> str:
    """The letter of a process's state on this machine (``man proc``); empty where there is none."""
    return (_stat(pid) or [""])[0]


def _stat(pid: int | None) -> list[str]:
    """What follows the name of the program, which may hold anything."""
    try:
        text = Path(f"/proc/{pid or 'self'}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def total_memory_bytes() -> int | None:
    """Of the whole machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
