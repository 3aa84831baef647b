"""Where a run comes from: versions, commit, command line, processor."""

import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from galpaca.runs.record_fields import GitState

_PACKAGES = ("galpaca", "torch", "lightning", "transformers", "tokenizers", "datasets", "numpy", "safetensors")


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state(folder: Path) -> GitState | None:
    """Commit of the source checkout and whether it has changes; None if it is not a checkout."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return GitState(commit=commit, dirty=bool(_git(folder, "status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None


def processor_name() -> str:
    """Model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def command_line() -> tuple[str, ...]:
    return (sys.executable, *sys.argv)


def _git(folder: Path, *arguments: str) -> str:
    line = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
