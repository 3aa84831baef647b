"""A rank's training as a process of its own, with all that it starts."""

from __future__ import annotations

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
    """A process in a session of its own, so that it and those that Lightning starts along with it end together.

    Args:
        command: what to run.
        environment: all of it.
        log: what it says goes to the end of this file.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Returns when it and all that it started are gone, and their memory with them."""
        group = self._process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + _GONE_SECONDS
        while _has_members(group) and time.monotonic() < deadline:
            time.sleep(0.02)


def _has_members(group: int) -> bool:
    """Whether a process of the group is alive; a zombie, whose parent has not asked for it yet, is not."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if int(its_group) == group and state not in ("Z", "X"):
            return True
    return False
