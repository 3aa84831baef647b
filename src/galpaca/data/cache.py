"""The encoded examples on disk: memory-mapped, checksummed, written once however many ranks start together."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from galpaca.data.encoding import FORMAT_VERSION, EncodedExamples
from galpaca.data.receipt import Receipt
from galpaca.errors import InputError

_ARRAYS = tuple(field.name for field in fields(EncodedExamples) if field.name != "receipt")
_META = "meta.json"


def cache_key(**parts: object) -> str:
    """SHA-256 over everything that determines the examples, and the format version."""
    text = json.dumps({**parts, "format_version": FORMAT_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_or_encode(root: Path, key: str, encode: Callable[[], EncodedExamples]) -> EncodedExamples:
    """Loads the examples of ``key``, encoding them first if they are missing or damaged.

    One process encodes while others that ask for the same key wait. The entry appears by a rename, so that it is
    whole or absent even on file systems without locks.

    Raises:
        InputError: the folder cannot be written; or whatever ``encode`` refuses.
    """
    entry = root / key[:32]
    try:
        return _load(entry)
    except FileNotFoundError:
        pass
    except _DamagedError as damage:
        warnings.warn(f"the encoded data in {entry} is damaged ({damage}); encoding it again", stacklevel=2)
    made = missing_folders(root)
    lock = root / f"{entry.name}.lock"
    try:
        with waiting_for(lock):
            try:
                return _load(entry)  # another process was faster
            except (FileNotFoundError, _DamagedError):
                shutil.rmtree(entry, ignore_errors=True)
            _write(entry, encode())
        return _load(entry)
    except OSError as error:
        raise InputError(
            f"cannot save the encoded data: {error.strerror or error}", where=root, fix="data.cache_dir=FOLDER"
        ) from None
    except BaseException:
        leave_nothing(lock, made)
        raise


def missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextmanager
def waiting_for(lock: Path) -> Iterator[None]:
    """Holds a file lock. Its previous holder may have failed and removed the folder."""
    guard = FileLock(lock)
    while not guard.is_locked:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            guard.acquire()
    try:
        yield
    finally:
        guard.release()


def leave_nothing(lock: Path, made: list[Path]) -> None:
    """Cleans up after rejected data: removes the lock and the folders created for it."""
    lock.unlink(missing_ok=True)
    with suppress(OSError):  # something else has come to be in there
        for folder in made:
            folder.rmdir()


class _DamagedError(Exception):
    pass


def _load(entry: Path) -> EncodedExamples:
    if not entry.is_dir():
        raise FileNotFoundError(entry)
    try:
        meta = json.loads((entry / _META).read_text())
        if _digest_of(meta["content"]) != meta["sha256"]:
            raise ValueError(f"checksum of {_META}")
        meta = meta["content"]
        arrays = {name: _load_array(entry / f"{name}.npy", meta["files"][name]) for name in _ARRAYS}
        return EncodedExamples(**arrays, receipt=Receipt(**meta["receipt"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from None


def _digest_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load_array(path: Path, sha256: str) -> Any:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"checksum of {path.name}")
    return np.load(path, mmap_mode="r")


def _write(entry: Path, examples: EncodedExamples) -> None:
    partial = entry.with_name(f"{entry.name}.partial-{os.getpid()}")
    for leftover in entry.parent.glob(f"{entry.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a killed process: this one holds the lock
    partial.mkdir()
    try:
        files = {}
        for name in _ARRAYS:
            path = partial / f"{name}.npy"
            np.save(path, getattr(examples, name))
            with path.open("rb") as file:
                files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        content = {"files": files, "receipt": examples.receipt.to_dict()}
        (partial / _META).write_text(json.dumps({"content": content, "sha256": _digest_of(content)}, indent=2))
        try:
            partial.rename(entry)
        except OSError:
            if not entry.is_dir():  # else another machine, that no lock held back, was faster
                raise
            shutil.rmtree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
