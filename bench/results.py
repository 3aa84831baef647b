"""Where a benchmark's figures go: one JSON file by date, benchmark and hardware."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "transformers", "lightning", "peft", "trl", "accelerate", "numpy")


def save(benchmark: str, figures: dict[str, Any], folder: Path = RESULTS, *, program: str | None = None) -> Path:
    """Writes ``DATE_BENCHMARK_HARDWARE.json``: the figures, and all that they depend on.

    Args:
        program: ``bench.PROGRAM`` was typed; by default the benchmark's name, where a program has only one.
    """
    now = datetime.now(UTC)
    path = folder / f"{now:%Y-%m-%d}_{benchmark}_{hardware()}.json"
    surroundings = {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"bench.{program or benchmark}", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": gpu(),
        "python": platform.python_version(),
        "packages": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**surroundings, **figures}, indent=2) + "\n", encoding="utf-8")
    return path


def hardware() -> str:
    """The machine in a file name: its GPU, or how many cores it has."""
    name = gpu_name()
    words = f"{name}" if name else f"cpu {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def gpu_name() -> str | None:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return listed.stdout.splitlines()[0].strip() if listed.stdout.strip() else None


def gpu() -> dict[str, Any] | None:
    """The first GPU as its driver describes it; None without one."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
        listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    if not listed:
        return None
    name, driver, memory, power = (value.strip() for value in listed[0].split(","))
    return {"name": name, "count": len(listed), "driver": driver, "memory": memory, "power_limit": power}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with a mark if files differ from it; results of other benchmarks do not count."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!bench/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-dirty" if changed else name


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
