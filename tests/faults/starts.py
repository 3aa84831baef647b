"""``train.py`` stopped by SIGTERM at any moment before its first step: while it imports, composes, encodes, builds."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from conftest import command
from forked import Forked

_LIMIT_SECONDS = 240


@dataclass(frozen=True)
class Stop:
    """How a start ended.

    Attributes:
        after_seconds: of the process's own CPU time, which a busy machine does not stretch.
        exit_code: negative if a signal ended it.
        errors: its standard error.
    """

    after_seconds: float
    exit_code: int
    errors: str

    def check(self) -> None:
        """Raises:
        AssertionError: it was more than a line and the documented exit code.
        """
        assert "Traceback" not in self.errors, self
        # Before Python has called the door, SIGTERM does what it does to any process.
        assert self.exit_code in (143, -signal.SIGTERM), self
        assert self.exit_code != 143 or "stopped " in self.errors, self


class Starts:
    """Starts of runs in one folder.

    Args:
        server: forks them, for moments after the imports; by default they are processes of their own, which import.
    """

    def __init__(self, folder: Path, tokenizer: Path, records: Path, server: str | None = None) -> None:
        self._folder, self._tokenizer, self._records, self._server = folder, tokenizer, records, server
        self._number = 0

    def seconds(self) -> float:
        """CPU time from the command to the first step."""
        return self._start(None).after_seconds

    def stopped_after(self, seconds: float) -> Stop:
        return self._start(seconds)

    def _start(self, stop_after: float | None) -> Stop:
        self._number += 1
        name = f"{'forked' if self._server else 'start'}-{self._number}"
        steps = ("trainer.max_steps=1000", "trainer.max_epochs=1000")
        line = command(self._folder, self._tokenizer, self._records, f"run.name={name}", *steps)
        metrics = self._folder / "runs" / name / "metrics.jsonl"
        with (self._folder / f"{name}.err").open("w+", encoding="utf-8") as errors:
            process = self._process(line, errors)
            used = 0.0
            while process.poll() is None and not metrics.exists():
                used = _cpu_seconds(process.pid)
                if stop_after is not None and used >= stop_after:
                    break
                time.sleep(0.001)
            process.send_signal(signal.SIGTERM)
            code = process.wait(_LIMIT_SECONDS)
            errors.seek(0)
            return Stop(used, code, errors.read())

    def _process(self, line: list[str], errors: TextIO) -> subprocess.Popen[bytes] | Forked:
        if self._server is None:
            return subprocess.Popen(line, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=errors)
        with Path(os.devnull).open("w") as nothing:
            out, err = nothing.fileno(), errors.fileno()
            return Forked(self._server, line[1:], cwd=self._folder, env=os.environ, stdout=out, stderr=err)


def _cpu_seconds(pid: int) -> float:
    # Linux's number of another process's clock: see clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)
