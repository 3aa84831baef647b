"""Prepared folders: created once by one process, complete or absent, with a checksum of every file."""

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
    """The content of ``checksums.json``.

    Attributes:
        files: size and SHA-256 of each file, by name.
        source: where the files come from.
    """

    files: Mapping[str, FileFacts]
    source: Mapping[str, Any]

    def to_json(self) -> str:
        files = {name: asdict(facts) for name, facts in self.files.items()}
        return sealed({"source": dict(self.source), "files": files})


def read_checksums(folder: Path) -> Checksums | None:
    """Reads ``checksums.json``; None if it is missing or damaged."""
    try:
        content = unsealed((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return Checksums({name: FileFacts(**facts) for name, facts in content["files"].items()}, content["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Filled:
    """What a folder was filled with.

    Attributes:
        source: where the files come from.
        facts: size and checksum of files already read in full; the others are read for it.
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
    """Creates a prepared folder unless it exists.

    One process works while others that need the same folder wait. The folder appears by a rename, so it is complete or
    absent even on file systems without locks.

    Args:
        fill: writes the files into the given folder.
        thorough: verify every file of an existing folder, and create it again if one is damaged.
        still_right: whether an existing folder matches the current source.

    Returns:
        Whether it was created by this call.

    Raises:
        InputError: it cannot be written, or ``fill`` raises one.
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
        f"cannot create the folder: {error.strerror or error}",
        where=folder,
        why=str(error.filename or ""),
        fix="free disk space or make it writable; or choose another folder with run.root=FOLDER (or --out FOLDER)",
    )


def write_checksums(folder: Path, filled: Filled) -> None:
    """Writes ``checksums.json`` for all files in the folder."""
    unread = [path for path in sorted(folder.iterdir()) if path.name not in filled.facts]
    files = {**filled.facts, **facts_of(unread)}
    replace_file(folder / CHECKSUMS, Checksums(dict(sorted(files.items())), filled.source).to_json())
