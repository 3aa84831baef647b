"""A lock that allows one writer in a run folder. It ends with its process, so a crash leaves no lock behind."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from galpaca.errors import InputError
from galpaca.runs.host import process_age_seconds

# What flock answers where another process holds the lock.
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@dataclass(frozen=True)
class Holder:
    """The process recorded in a lock file."""

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool | None:
        """Whether the process is alive; None if it is on another machine, whose locks may not be visible here."""
        if self.host != socket.gethostname():
            return None
        age = process_age_seconds(self.pid)
        # A process that is younger than the lock has only inherited the number.
        return age is not None and time.time() - age <= self.since + 2


def read_holder(lock: Path) -> Holder | None:
    """The process that holds a lock, or held it when it was killed; None if it was released."""
    try:
        owner = json.loads(lock.read_text(encoding="utf-8"))
        return Holder(str(owner["host"]), int(owner["pid"]), lock.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Of this process, now.
_held: list[IO[str]] = []


@contextmanager
def _closed_in_children(file: IO[str]) -> Iterator[None]:
    """A forked data worker outlives a process that is killed by some seconds, and would hold its lock."""
    _held.append(file)
    try:
        yield
    finally:
        _held.remove(file)


def _close_in_child() -> None:
    for file in _held:
        file.close()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(
    path: Path,
    held: str = "another process is writing in this run folder",
    fix: str = "wait for it, stop it, or choose run.name=ANOTHER",
) -> Iterator[None]:
    """Holds the lock file ``path`` while the context lasts.

    Args:
        held, fix: message where another process holds it.

    Raises:
        InputError: another process holds it.
    """
    with path.open("a+", encoding="utf-8") as file, _closed_in_children(file):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                raise InputError(
                    f"the file system does not support locks: {error.strerror}",
                    where=path,
                    why="without locks, two processes could write to one run folder",
                    fix="run.root=FOLDER on another file system, or mount this one with locks (Lustre: -o flock)",
                ) from None
            why = str(read_holder(path) or "an unknown process")
            raise InputError(held, where=path.parent, why=why, fix=fix) from None
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
