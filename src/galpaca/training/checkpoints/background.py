"""One piece of work at a time, in the background."""

import threading
from collections.abc import Callable


class Background:
    """A thread for one piece of work after the other. It dies with the process and keeps none from ending."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._idle = threading.Event()
        self._idle.set()

    def start(self, work: Callable[[], None]) -> None:
        """Starts a piece of work when the one before has ended. After an error nothing more is started."""
        self.wait()
        if self.error is None:
            self._idle.clear()
            threading.Thread(target=self._run, args=(work,), daemon=True, name="galpaca checkpoint").start()

    def wait(self) -> None:
        self._idle.wait()  # not the thread's join, which a signal can make return early for good

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # raised by the thread that trains
            self.error = error
        finally:
            self._idle.set()
