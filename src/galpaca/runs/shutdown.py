"""The shutdown flag: signals request a stop, and the run stops at a safe point."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from galpaca.errors import StoppedBySignal

# The strongest last: a person's Ctrl-C ends a run for good, a scheduler's warning has it come back.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
_AGAIN_SECONDS = 0.02


class Shutdown:
    """Listens for SIGTERM, SIGUSR1 (a scheduler's warning) and Ctrl-C.

    Before training there is nothing to save, and a signal ends the process at once. In training the first signal only
    sets a flag, which ranks agree on at the end of a step. A second Ctrl-C ends the process at once; a second SIGTERM
    does not, since schedulers send several while they wait for the first one's effect.

    No exception is raised while a module is imported: in a library's C++ initialization it would abort the process. The
    signal is sent again, every 20 ms, until the import is over; likewise one whose exception Python had to drop.

    Attributes:
        deferred: signals only set the flag.
        urgency: 0 before a signal; else which one, as a number that ranks can compare.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.urgency = 0
        self._pid = os.getpid()
        self._held = 0  # the urgency of the signal that is to be sent again

    def listen(self) -> None:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens while the context lasts."""
        before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
        hook = sys.unraisablehook
        self.listen()
        sys.unraisablehook = partial(self._see_dropped, hook)
        try:
            yield
        finally:
            sys.unraisablehook = hook
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked worker inherits the handler; its parent decides
        if self.deferred and not (self.urgency and number == signal.SIGINT):
            self.urgency = max(self.urgency, _urgency_of(number))
        elif _is_importing(frame):
            self._send_again_soon(number)
        else:
            raise StoppedBySignal(f"stopped by {signal.Signals(number).name}", number)

    def _send_again_soon(self, number: int) -> None:
        self._held = max(self._held, _urgency_of(number))
        # A timer rather than a thread: the interrupted code may hold the locks that starting one takes.
        signal.signal(signal.SIGALRM, self._send_again)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    def _send_again(self, number: int, frame: FrameType | None) -> None:
        held, self._held = self._held, 0
        signal.raise_signal(signal_of(held))  # whoever listens to it by now

    def _see_dropped(self, hook: Callable[[Any], object], unraisable: Any) -> None:
        """``sys.unraisablehook``: no exception leaves a finalizer or a callback of a weak reference."""
        if isinstance(unraisable.exc_value, StoppedBySignal):
            self._send_again_soon(unraisable.exc_value.number)
        else:
            hook(unraisable)


def _urgency_of(number: int) -> int:
    return _SIGNALS.index(signal.Signals(number)) + 1


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def signal_of(urgency: float) -> signal.Signals:
    """The signal behind an urgency above 0, such as the highest of all ranks."""
    return _SIGNALS[int(urgency) - 1]


def ignore_signals() -> None:
    """Ignores signals, in processes that end when the process they follow does."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
