"""The shutdown flag: signals request a stop, and the run stops at a safe point."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from types import FrameType
from typing import Any

from galpaca.errors import StoppedBySignal
from galpaca.runs.last_resort import LastResort

# The strongest last: a person's Ctrl-C ends a run for good, a scheduler's warning has it come back.
_STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# What others mean: a terminal that closes ends what runs in it; submitit warns with the second user signal.
_MEANS: Mapping[int, signal.Signals] = {signal.SIGHUP: signal.SIGTERM, signal.SIGUSR2: signal.SIGUSR1}
SIGNALS = (*_STOPS, signal.SIGHUP, signal.SIGUSR2)
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
_AGAIN_SECONDS = 0.02


class Shutdown:
    """Listens for SIGTERM and SIGHUP, for a scheduler's warning (SIGUSR1, SIGUSR2) and for Ctrl-C.

    Before training there is nothing to save, and a signal ends the process at once. In training the first signal only
    sets a flag, which ranks agree on at the end of a step. A second Ctrl-C ends the process at once; a second SIGTERM
    does not, since schedulers send several while they wait for the first one's effect.

    No exception is raised while a module is imported: in a library's C++ initialization it would abort the process. The
    signal is sent again, every 20 ms, until the import is over; likewise one whose exception Python had to drop. A
    process that should end at once and does not, since its main thread waits in foreign code, is ended by
    ``LastResort``.

    A SIGHUP that was ignored from the beginning, as by nohup, stays ignored.

    Args:
        end: ends the process from a thread where its main thread does not.

    Attributes:
        deferred: signals only set the flag.
        urgency: 0 before a signal; else which one, as a number that ranks can compare.
        at_last: called with the signal before ``end``, in the order of the list.
    """

    _current: "Shutdown | None" = None

    def __init__(self, end: Callable[[StoppedBySignal], object] | None = None) -> None:
        self.deferred = False
        self.urgency = 0
        self.at_last: list[Callable[[StoppedBySignal], object]] = []
        self._pid = os.getpid()
        self._held = 0  # the urgency of the signal that is to be sent again
        self._end = end
        self._last_resort = LastResort(SIGNALS, self._ends_at_once, self._end_at_once)

    @classmethod
    def of_process(cls) -> "Shutdown":
        """The one that listens: signals go to a process. Where none does, a new one does from now on."""
        if cls._current is None:
            cls._current = cls()
            cls._current.listen()
        return cls._current

    def listen(self) -> None:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens while the context lasts."""
        before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
        hook, outer = sys.unraisablehook, Shutdown._current
        self.listen()
        sys.unraisablehook, Shutdown._current = partial(self._see_dropped, hook), self
        try:
            with self._last_resort.watching() if self._end is not None else nullcontext():
                yield
        finally:
            sys.unraisablehook, Shutdown._current = hook, outer
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Signals only set the flag while the context lasts."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False

    def check(self, what: str) -> None:
        """Raises if a signal came.

        Raises:
            StoppedBySignal: ``what`` was stopped by it.
        """
        if self.urgency:
            number = signal_of(self.urgency)
            raise StoppedBySignal(f"{what} stopped by {number.name}", number)

    def leave(self) -> None:
        """The process is about to end: signals are ignored from here on, and nothing else ends it."""
        self._last_resort.stand_down()
        ignore_signals()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked worker inherits the handler; its parent decides
        if self.deferred and not (self.urgency and number == signal.SIGINT):
            self.urgency = max(self.urgency, _urgency_of(number))
        elif _is_importing(frame):
            self._send_again_soon(number)
        else:
            raise _stopped_by(number)

    def _ends_at_once(self, number: int, *, is_first: bool) -> bool:
        """Whether the process has to end at once after a signal, as far as this object has a say in it."""
        is_ours = signal.getsignal(number) == self._handle
        return is_ours and (not self.deferred or (number == signal.SIGINT and not is_first))

    def _end_at_once(self, number: int) -> None:
        stop = _stopped_by(number)
        for act in self.at_last:
            with suppress(Exception):  # whatever fails here, the end comes
                act(stop)
        if self._end is not None:
            self._end(stop)

    def _send_again_soon(self, number: int) -> None:
        self._held = max(self._held, _urgency_of(number))
        # A timer rather than a thread: the interrupted code may hold the locks that starting one takes.
        signal.signal(signal.SIGALRM, self._send_again)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    def _send_again(self, number: int, frame: FrameType | None) -> None:
        held, self._held = signal_of(self._held), 0
        if signal.getsignal(held) == self._handle:
            self._handle(held, frame)  # the same signal, and not a second one
        else:
            signal.raise_signal(held)  # whoever listens to it by now

    def _see_dropped(self, hook: Callable[[Any], object], unraisable: Any) -> None:
        """``sys.unraisablehook``: no exception leaves a finalizer or a callback of a weak reference."""
        if isinstance(unraisable.exc_value, StoppedBySignal):
            self._send_again_soon(unraisable.exc_value.number)
        else:
            hook(unraisable)


def _stopped_by(number: int) -> StoppedBySignal:
    return StoppedBySignal(f"stopped by {signal.Signals(number).name}", _MEANS.get(number, number))


def _urgency_of(number: int) -> int:
    return _STOPS.index(_MEANS.get(number, signal.Signals(number))) + 1


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def signal_of(urgency: float) -> signal.Signals:
    """The signal behind an urgency above 0, such as the highest of all ranks."""
    return _STOPS[int(urgency) - 1]


def ignore_signals() -> None:
    """Ignores signals, in processes that end when the process they follow does. Only a main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
