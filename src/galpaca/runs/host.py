"""The machine that a process runs on."""

from pathlib import Path


def available_memory_bytes() -> int | None:
    """What Linux would hand out without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
