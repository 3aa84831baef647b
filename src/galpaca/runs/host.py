"""The machine that a process runs on, and the process in it."""

import os
import time
from pathlib import Path


def available_memory_bytes() -> int | None:
    """Host memory available without swapping; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


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
