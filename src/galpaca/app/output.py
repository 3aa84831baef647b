"""Standard output and error, where they may go away before the command is done."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_NAMES = {1: "standard output", 2: "standard error"}
# Nobody reads any more: as of a program that SIGPIPE has ended.
CLOSED = 141
_OF_A_READER = (errno.EPIPE, errno.EIO)

# What was lost in this process, a line for each stream.
_losses: dict[int, str] = {}


class OutputLostError(Exception):
    """What a command prints cannot be written, and printing is all that it does."""

    def __init__(self, stream: str, error: OSError) -> None:
        super().__init__(f"{stream}: {error.strerror}")
        self.stream, self.reason = stream, str(error.strerror)
        self.nobody_reads = error.errno in _OF_A_READER


def losses() -> tuple[str, ...]:
    """What could not be written so far, for the record of the run."""
    return tuple(_losses[number] for number in sorted(_losses))


@contextmanager
def lasting_output(*, only_prints: bool) -> Iterator[None]:
    """A closed pipe or terminal and a full disk under the output end nothing that does more than print.

    Args:
        only_prints: the command only prints, and ends when it cannot.
    """
    before = sys.stdout, sys.stderr
    _losses.clear()
    sys.stdout, sys.stderr = (_lasting(stream, only_prints) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OutputLostError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: Any, only_prints: bool) -> Any:
    """A stream of the same kind that survives; what tests and notebooks put in its place stays as it is."""
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:
        return stream
    try:
        number = stream.fileno()
    except OSError:
        return stream
    stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets a question mark, not a trace
    if number not in _NAMES:
        return stream
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(number, raises=only_prints)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Descriptor(io.FileIO):
    """Drops what it cannot write, and says so once, where that is still possible."""

    def __init__(self, number: int, *, raises: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._raises = raises

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            self._lost(error)
        return memoryview(data).nbytes

    def _lost(self, error: OSError) -> None:
        number = self.fileno()
        if number in _losses:
            return
        _losses[number] = f"{_NAMES[number]}: {error.strerror}"
        if self._raises:
            raise OutputLostError(_NAMES[number], error)
        if number != 2:
            with suppress(OSError):
                os.write(2, f"warning: {_losses[number]}; the command continues without it\n".encode())
