"""Prepared folders: made once by one process, whole or absent, with a checksum of every file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.files.build_once import build_folder_once
from galpaca.files.checksums import FileFacts, damages, facts_of, sealed, unsealed

CHECKSUMS = "checksums.json"


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

    try:
        return build_folder_once(folder, lambda partial: write_checksums(partial, fill(partial)), is_there)
    except OSError as error:
        raise cannot_make(folder, error) from None


def cannot_make(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the folder cannot be made: {error.strerror or error}",
        where=folder,
        why=str(error.filename or ""),
        fix="make room or make it writable; run.root=FOLDER (or --out FOLDER) takes another place",
    )


def write_checksums(folder: Path, filled: Filled) -> None:
    """Of all files in the folder."""
    unread = [path for path in sorted(folder.iterdir()) if path.name not in filled.facts]
    files = {**filled.facts, **facts_of(unread)}
    replace_file(folder / CHECKSUMS, Checksums(dict(sorted(files.items())), filled.source).to_json())
