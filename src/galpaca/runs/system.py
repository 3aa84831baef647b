"""``system.jsonl``: the machine while a run trains, in lines with a time and the run's step."""

import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from galpaca.runs.host import available_memory_bytes, total_memory_bytes
from galpaca.runs.lines import Alert, SystemLine, to_text

# Of nvidia-smi, in its units, to names and units here.
_GPU = {
    "utilization.gpu": ("utilization_percent", 1.0),
    "memory.used": ("memory_bytes", 2.0**20),
    "power.draw": ("power_watts", 1.0),
    "temperature.gpu": ("temperature_celsius", 1.0),
}
_ANSWER_SECONDS = 10.0


class SystemLog:
    """Appends a line with the machine's figures every so often, in a background thread, and others on request.

    Attributes:
        step: the run's last step so far.
    """

    def __init__(self, path: Path, every_seconds: float = 15.0) -> None:
        self.step = 0
        self._path, self._every_seconds = path, every_seconds
        self._writing, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="galpaca-system", daemon=True)
        self._thread.start()

    def write(self, figures: Mapping[str, Any], alert: Alert | None = None) -> None:
        """Appends a line. A disk that is full is none of this file's business."""
        known = {name: value for name, value in figures.items() if not isinstance(value, float) or math.isfinite(value)}
        line = to_text(SystemLine(time=round(time.time(), 3), step=self.step, alert=alert, extra=known)) + "\n"
        with self._writing, suppress(OSError), self._path.open("ab+") as file:
            # A killed run may have left half a line.
            whole = file.tell() == 0 or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
            file.write((line if whole else "\n" + line).encode())

    def close(self) -> None:
        self._closed.set()
        self._thread.join(1.0)

    def _sample(self) -> None:
        while not self._closed.is_set():
            self.write(host_figures() | gpu_figures())
            self._closed.wait(self._every_seconds)


def host_figures() -> dict[str, float]:
    """Memory in use on this machine, or in this job, and how many processes want a core."""
    total, available = total_memory_bytes(), available_memory_bytes()
    used = {} if total is None or available is None else {"host_memory_bytes": total - available}
    return {**used, "host_load": round(os.getloadavg()[0], 2)}


def gpu_figures() -> dict[str, float]:
    """Figures of the GPUs that ``nvidia-smi`` shows; none without it."""
    if not shutil.which("nvidia-smi"):
        return {}
    line = ["nvidia-smi", f"--query-gpu=index,{','.join(_GPU)}", "--format=csv,noheader,nounits"]
    figures = {}
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True, stdin=subprocess.DEVNULL
        )
        for row in done.stdout.splitlines():
            index, *values = (value.strip() for value in row.split(","))
            for (name, factor), value in zip(_GPU.values(), values, strict=False):
                with suppress(ValueError):  # such as [N/A]
                    figures[f"gpu{index}_{name}"] = float(value) * factor
    return figures
