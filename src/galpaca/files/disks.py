"""Which file did not fit: the system does not name it when a write fails."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Full, over its quota, or read-only.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of what is written in the context name the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
