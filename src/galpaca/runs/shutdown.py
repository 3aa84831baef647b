"""The shutdown flag: signals ask, and the run stops where it can do so in good order."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from galpaca.errors import StoppedBySignal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Listens for SIGTERM and Ctrl-C.

    Before training there is nothing to save, and a signal ends the process at once. In training the first signal only
    sets a flag, which ranks agree on at the end of a step. A second Ctrl-C ends the process at once; a second SIGTERM
    does not, since schedulers send several while they wait for the first one's effect.
    """

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False
        self._pid = os.getpid()

    def listen(self) -> None:
        """Installs the handlers; again, where a library has put its own in their place."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens for as long as the context lasts."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked worker inherits the handler; its parent decides
        if not self.deferred or (self.requested and number == signal.SIGINT):
            raise StoppedBySignal(f"stopped by {signal.Signals(number).name}")
        self.requested = True
