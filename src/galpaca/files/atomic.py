"""Files written so that a reader, a crash or a power cut finds them whole."""

import os
from contextlib import suppress
from pathlib import Path

from galpaca.files.disks import naming


def replace_file(path: Path, content: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new one."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with naming(path), partial.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def sync_folder(path: Path) -> None:
    """Makes the names in a folder, and everything below it, survive a power cut."""
    for entry in sorted(path.rglob("*")) if path.is_dir() else []:
        if entry.is_file():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_entry(entry)
    sync_entry(path)


def sync_entry(path: Path) -> None:
    """Makes a folder's own entries (names, renames) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
