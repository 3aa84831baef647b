"""Folders built by one process while others wait: whole or absent."""

import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from galpaca.files.atomic import sync_entry, sync_folder

_PARTIAL = ".partial-"


def build_folder_once(folder: Path, fill: Callable[[Path], None], is_whole: Callable[[], bool]) -> bool:
    """Builds a folder, unless it is there.

    One process works while others that need the same folder wait. The folder appears by a rename, so it is complete or
    absent even on file systems without locks.

    Args:
        fill: writes the files into the given folder.
        is_whole: whether the folder is there and can be used as it is; else it is replaced.

    Returns:
        Whether it was built now.

    Raises:
        OSError: it cannot be written; or whatever ``fill`` raises. No lock and no new folder is left then.
    """
    if is_whole():
        return False
    lock = folder.with_name(f"{folder.name}.lock")
    with no_empty_folders(folder.parent):
        try:
            with file_lock(lock):
                if is_whole():  # another process was faster
                    return False
                _build(folder, fill, is_whole)
        except BaseException:
            with suppress(OSError):  # there may be no place for the lock either
                lock.unlink(missing_ok=True)
            raise
    return True


@contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Removes at the end those of a folder and of those above it that were made in the context and are empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # the first that holds something, and so all above it
            for path in made:
                path.rmdir()


@contextmanager
def file_lock(lock: Path) -> Iterator[None]:
    """Holds the lock. Whoever held it before may have failed and taken the folder away."""
    guard = FileLock(lock)
    while not guard.is_locked:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            guard.acquire()
    try:
        yield
    finally:
        guard.release()


def fresh_partial(folder: Path) -> Path:
    """Creates an empty temporary folder beside ``folder``; leftovers of killed processes are removed."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}{_PARTIAL}{os.getpid()}")
    partial.mkdir(parents=True)
    return partial


def _build(folder: Path, fill: Callable[[Path], None], is_whole: Callable[[], bool]) -> None:
    partial = fresh_partial(folder)
    try:
        fill(partial)
        sync_folder(partial)
        if folder.exists() and not is_whole():
            shutil.rmtree(folder)  # damaged, or of another source
        try:
            partial.rename(folder)
        except OSError:
            if not is_whole():  # else another machine, that no lock held back, was faster
                raise
        sync_entry(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
