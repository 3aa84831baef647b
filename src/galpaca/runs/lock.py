"""A lock that allows one writer in a run folder. It ends with its process, so a crash leaves no lock behind."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from galpaca.errors import InputError

# What flock answers where another process holds the lock.
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
# A process that checks whether it is held has it for some microseconds: tried once more, that late.
_AGAIN_SECONDS = 0.1


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
    with path.open("a+", encoding="utf-8") as file:
        try:
            _take(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _HELD:
                raise InputError(
                    f"the file system does not support locks: {error.strerror}",
                    where=path,
                    why="without locks, two processes could write to one run folder",
                    fix="run.root=FOLDER on another file system, or mount this one with locks (Lustre: -o flock)",
                ) from None
            raise InputError(
                held,
                where=path.parent,
                why=_owner(path),
                fix=fix,
            ) from None
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; not every file system reports locks of other machines.

    An owner that released the lock has emptied the file, which is then not touched.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if not file.read(1):
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    return False


def _take(file: IO[str], how: int) -> None:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        time.sleep(_AGAIN_SECONDS)
        fcntl.flock(file, how | fcntl.LOCK_NB)


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "an unknown process"
