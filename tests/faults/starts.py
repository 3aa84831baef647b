"""``train.py`` stopped by SIGTERM at any moment before its first step: while it imports, composes, encodes, builds."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conftest import command

from galpaca.runs.host import process_state

_LIMIT_SECONDS = 240
# Of the processor, after which a start has installed its handlers and is far from its first step.
_LISTENING_SECONDS = 1.5


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


class WaitingStart:
    """A start on two ranks, one of which stands still from its first moment: the other waits for it.

    Args:
        stands_still: False for one that goes on.

    Attributes:
        process: rank 0, which has launched the other one.
    """

    OVERRIDES = ("strategy=ddp", "trainer.devices=2")

    def __init__(self, line: list[str], folder: Path, *, stands_still: bool = True) -> None:
        self._stands_still = stands_still
        self._errors = (folder / "start.err").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=self._errors)
        self._record = folder / "runs" / "test" / "run.json"
        self._other = 0

    def __enter__(self) -> "WaitingStart":
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not self._other and time.monotonic() < deadline:
            for child in _children(self.process.pid):
                if b"LOCAL_RANK=1" in _environment(child):
                    if self._stands_still:
                        os.kill(child, signal.SIGSTOP)
                    self._other = child
            time.sleep(0.02)
        assert self._other, self.errors()
        if self._stands_still:
            time.sleep(2)  # until rank 0 is in the rendezvous
        return self

    def signal_other(self, number: int) -> None:
        """To the launched rank, while it imports."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        while _cpu_seconds(self._other) < _LISTENING_SECONDS and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(self._other, number)

    def __exit__(self, *_: object) -> None:
        for pid in (self._other, self.process.pid):
            if self.process.poll() is None or pid == self._other:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()

    def stopped_by(self, number: int) -> int:
        """Its exit code, which comes within seconds."""
        self.process.send_signal(number)
        return self.process.wait(15)

    def errors(self) -> str:
        self._errors.flush()
        return (Path(self._errors.name)).read_text(encoding="utf-8")

    def leaves_nobody(self) -> bool:
        deadline = time.monotonic() + 10
        while process_state(self._other) not in ("", "Z") and time.monotonic() < deadline:
            time.sleep(0.05)
        return process_state(self._other) in ("", "Z")


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _cpu_seconds(pid: int) -> float:
    # Linux's number of another process's clock: see clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)
