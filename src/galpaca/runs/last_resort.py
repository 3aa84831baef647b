"""The end of a process whose main thread does not follow a signal.

Python calls signal handlers in the main thread, and only between its own instructions: while that thread waits in
foreign code, such as for ranks that never come, no handler is called. What C does at once is write the signal's number
into a pipe (``signal.set_wakeup_fd``), and any thread may read that.
"""

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

# To unwind: a file that is being written is taken away.
UNWIND_SECONDS = 3.0
_NO_SIGNAL = b"\0"


class EndsAtOnce(Protocol):
    """Whether a process has to end at once after a signal."""

    def __call__(self, number: int, *, is_first: bool) -> bool: ...


class LastResort:
    """Ends a process from a thread of its own, some seconds after a signal that should have ended it.

    Args:
        numbers: of the signals that count.
        ends_at_once: asked when the signal comes, and again when the time is up.
        end: ends the process; called in the thread.
    """

    def __init__(self, numbers: Collection[int], ends_at_once: EndsAtOnce, end: Callable[[int], object]) -> None:
        self._numbers, self._ends_at_once, self._end = numbers, ends_at_once, end
        self._is_leaving = threading.Event()

    def stand_down(self) -> None:
        """The process is on its way out: it needs no end from here."""
        self._is_leaving.set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches while the context lasts. Does nothing outside of the main thread, where signals are none's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(reader,), daemon=True, name="galpaca last resort")
        thread.start()
        try:
            yield
        finally:
            self.stand_down()
            signal.set_wakeup_fd(before)
            os.write(writer, _NO_SIGNAL)
            thread.join()
            os.close(reader)
            os.close(writer)

    def _watch(self, reader: int) -> None:
        is_first = True
        while (read := os.read(reader, 1)) != _NO_SIGNAL:
            [number] = read
            if number not in self._numbers:
                continue
            ends, was_first = self._ends_at_once(number, is_first=is_first), is_first
            is_first = False
            # Training may have begun meanwhile, and then the signal asks it to save.
            if ends and not self._is_leaving.wait(UNWIND_SECONDS) and self._ends_at_once(number, is_first=was_first):
                self._end(number)


def _forget_in_child() -> None:
    """A forked process gets signals of its own: they are not its parent's."""
    with suppress(ValueError):  # not in a main thread: then it had no pipe either
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
