"""Signal handling while a rehearsal has processes and files to clean up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from galpaca.errors import StoppedBySignal

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Interrupts:
    """Signals only set a flag that the rehearsal polls, so cleanup is never interrupted."""

    def __init__(self) -> None:
        self._received: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises if a signal came.

        Raises:
            StoppedBySignal: a signal came.
        """
        if self._received is not None:
            message = f"rehearsal stopped by {signal.Signals(self._received).name}"
            raise StoppedBySignal(message, self._received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = number
