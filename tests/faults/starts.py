"""``train.py`` stopped by SIGTERM at any moment before its first step: while it imports, composes, encodes, builds."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import command

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
    """Starts of runs in one folder, in processes of their own: what is forked has imported everything."""

    def __init__(self, folder: Path, tokenizer: Path, records: Path) -> None:
        self._folder, self._tokenizer, self._records = folder, tokenizer, records
        self._number = 0

    def seconds(self) -> float:
        """CPU time from the command to the first step."""
        return self._start(None).after_seconds

    def stopped_after(self, seconds: float) -> Stop:
        return self._start(seconds)

    def _start(self, stop_after: float | None) -> Stop:
        self._number += 1
        name = f"start-{self._number}"
        steps = ("trainer.max_steps=1000", "trainer.max_epochs=1000")
        line = command(self._folder, self._tokenizer, self._records, f"run.name={name}", *steps)
        metrics = self._folder / "runs" / name / "metrics.jsonl"
        with (self._folder / f"{name}.err").open("w+", encoding="utf-8") as errors:
            with subprocess.Popen(line, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=errors) as process:
                used = 0.0
                while process.poll() is None and not metrics.exists():
                    used = _cpu_seconds(process.pid)
                    if stop_after is not None and used >= stop_after:
                        break
                    time.sleep(0.001)
                process.send_signal(signal.SIGTERM)
                process.wait(_LIMIT_SECONDS)
            errors.seek(0)
            return Stop(used, process.returncode, errors.read())


def _cpu_seconds(pid: int) -> float:
    # Linux's number of another process's clock: see clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)
