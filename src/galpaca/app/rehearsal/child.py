"""A rank's training as a separate process, with every process it starts."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# How long a killed process may take to give back its GPU.
_GONE_SECONDS = 30.0


class Child:
    """A process in its own session, so that it ends together with the processes that Lightning launches.

    Args:
        command: command line to run.
        environment: its complete environment.
        log: file that its output is appended to, below a line with the phase.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, phase: int) -> None:
        with log.open("ab", buffering=0) as file:
            file.write(f"--- phase {phase}\n".encode())
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit code, negative if a signal ended it; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Kills it and every process it started; returns when all are gone and their memory is free."""
        group = self._process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + _GONE_SECONDS
        while _has_members(group) and time.monotonic() < deadline:
            time.sleep(0.02)


def _has_members(group: int) -> bool:
    """Whether a process of the group is alive; zombies do not count."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if int(its_group) == group and state not in ("Z", "X"):
            return True
    return False
