"""Prepared folders: made once by one process, whole or absent, with a checksum of every file."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galpaca.data.cache import leave_nothing, missing_folders, waiting_for
from galpaca.errors import InputError
from galpaca.runs.checksums import FileFacts, damages, facts_of, sealed, unsealed
from galpaca.runs.folder import replace_file, sync_entry, sync_folder

CHECKSUMS = "checksums.json"
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Checksums:
    """What ``checksums.json`` says.

    Attributes:
        files: size and SHA-256 by name.
        source: where they come from.
    """

    files: Mapping[str, FileFacts]
    source: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        return sum(facts.bytes or 0 for facts in self.files.values())

    def to_json(self) -> str:
        files = {name: asdict(facts) for name, facts in self.files.items()}
        return sealed({"source": dict(self.source), "files": files})


def read_checksums(folder: Path) -> Checksums | None:
    """None where there are none, or where they are damaged themselves."""
    try:
        content = unsealed((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return Checksums({name: FileFacts(**facts) for name, facts in content["files"].items()}, content["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Filled:
    """What a folder was filled with.

    Attributes:
        source: where it came from.
        facts: of files that have been read in full already; the others are read for it.
    """

    source: Mapping[str, Any]
    facts: Mapping[str, FileFacts]


def make_folder(
    folder: Path,
    fill: Callable[[Path], Filled],
    *,
    thorough: bool = False,
    still_right: Callable[[Checksums], bool] = lambda found: True,
) -> bool:
    """Makes a prepared folder, unless it is there.

    One process works while others that ask for the same folder wait. It appears by a rename, so that it is whole or
    absent even on file systems without locks.

    Args:
        fill: writes the files into the folder that it is given.
        thorough: read all files of a folder that is there, and make it again if one is damaged.
        still_right: whether a folder that is there is of the source as it is now.

    Returns:
        Whether it was made now.

    Raises:
        InputError: it cannot be written; or whatever ``fill`` refuses.
    """

    def is_there() -> bool:
        found = read_checksums(folder)
        return found is not None and still_right(found) and not (thorough and damages(folder, found.files))

    if is_there():
        return False
    made, lock = missing_folders(folder.parent), folder.with_name(f"{folder.name}.lock")
    try:
        with waiting_for(lock):
            if is_there():  # another process was faster
                return False
            _make(folder, fill)
    except BaseException as error:
        with suppress(OSError):  # there may be no place for the lock either
            leave_nothing(lock, made)
        if isinstance(error, OSError):
            raise cannot_make(folder, error) from None
        raise
    return True


def cannot_make(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the folder cannot be made: {error.strerror or error}",
        where=folder,
        why=str(error.filename or ""),
        fix="make room or make it writable; run.root=FOLDER (or --out FOLDER) takes another place",
    )


def _make(folder: Path, fill: Callable[[Path], Filled]) -> None:
    partial = fresh_partial(folder)
    try:
        write_checksums(partial, fill(partial))
        sync_folder(partial)
        if folder.exists():
            shutil.rmtree(folder)  # damaged, or of another source
        partial.rename(folder)
        sync_entry(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fresh_partial(folder: Path) -> Path:
    """An empty folder beside another, for its holder of the lock; those of killed processes are removed."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}{_PARTIAL}{os.getpid()}")
    partial.mkdir(parents=True)
    return partial


def write_checksums(folder: Path, filled: Filled) -> None:
    """Of all files in the folder."""
    unread = [path for path in sorted(folder.iterdir()) if path.name not in filled.facts]
    files = {**filled.facts, **facts_of(unread)}
    replace_file(folder / CHECKSUMS, Checksums(dict(sorted(files.items())), filled.source).to_json())
