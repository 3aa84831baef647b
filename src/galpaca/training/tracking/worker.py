"""A thread that talks to W&B, so that training never waits for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

Call = Callable[[Any], None]


class Worker:
    """Makes calls in order, in one thread of its own.

    Args:
        begin: the first of all; what it returns is given to the others.
        lost: told of the first error; the calls that follow it are left out.
        end: the last of all, whatever happened.
    """

    def __init__(
        self, begin: Callable[[], Any], lost: Callable[[Exception], None], end: Callable[[], None] = lambda: None
    ) -> None:
        self._begin, self._lost, self._end = begin, lost, end
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="galpaca-wandb", daemon=True)
        self._thread.start()

    def do(self, call: Call) -> None:
        """Puts a call at the end of the queue."""
        self._calls.put(call)

    def close(self, seconds: float) -> bool:
        """Waits for all calls.

        Args:
            seconds: maximum time to wait.

        Returns:
            Whether they are done.
        """
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            begun = self._begin()
            while (call := self._calls.get()) is not None:
                call(begun)
        except Exception as error:
            self._lost(error)
        finally:
            self._end()


def kill_service() -> None:
    """Ends W&B's process. One that hangs would keep this one from ending."""
    for child in _children():
        with suppress(OSError):
            if (Path("/proc") / str(child) / "comm").read_text(encoding="ascii").strip() == "wandb-core":
                os.kill(child, signal.SIGKILL)


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += [int(child) for child in task.read_text(encoding="ascii").split()]
    return found
