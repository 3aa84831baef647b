"""The shutdown flag: signals request a stop, and the run stops at a safe point."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from galpaca.errors import StoppedBySignal

# The strongest last: a person's Ctrl-C ends a run for good, a scheduler's warning asks it to come back.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Shutdown:
    """Listens for SIGTERM, SIGUSR1 (a scheduler's warning) and Ctrl-C.

    Before training there is nothing to save, and a signal ends the process at once. In training the first signal only
    sets a flag, which ranks agree on at the end of a step. A second Ctrl-C ends the process at once; a second SIGTERM
    does not, since schedulers send several while they wait for the first one's effect.

    Attributes:
        deferred: signals only set the flag.
        urgency: 0 before a signal; else which one, as a number that ranks can compare.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.urgency = 0
        self._pid = os.getpid()

    def listen(self) -> None:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens while the context lasts."""
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
        if not self.deferred or (self.urgency and number == signal.SIGINT):
            raise StoppedBySignal(f"stopped by {signal.Signals(number).name}", number)
        self.urgency = max(self.urgency, _SIGNALS.index(signal.Signals(number)) + 1)


def signal_of(urgency: float) -> signal.Signals:
    """The signal behind an urgency above 0, such as the highest of all ranks."""
    return _SIGNALS[int(urgency) - 1]


def ignore_signals() -> None:
    """Ignores signals, in processes that end when the process they follow does."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
