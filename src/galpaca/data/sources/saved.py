"""Data sets that were saved: in a folder by ``datasets``, or row by row by ``galpaca prepare``."""

import hashlib
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from galpaca.data.sources.table import Table
from galpaca.errors import InputError, first_line
from galpaca.files.checksums import file_facts


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` has written a folder, of one split or of several."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


class SavedToDisk:
    """A folder that ``save_to_disk`` of ``datasets`` has written.

    Args:
        split: which to take of several.

    Raises:
        InputError: the folder is not whole, or has no such split.
    """

    kind = "saved"

    def __init__(self, folder: Path, split: str) -> None:
        import datasets  # a second to import, and only these doors need it

        self.name = str(folder)
        try:
            loaded: Any = datasets.load_from_disk(str(folder))
        except Exception as error:  # the library raises a dozen unrelated kinds
            what = f"cannot load the saved data set: {first_line(error)}"
            raise InputError(what, where=folder, fix="save it again with save_to_disk") from None
        if isinstance(loaded, dict):
            if split not in loaded:
                first = next(iter(loaded), "SPLIT")
                fix = f"data.hub_split={first}, or the path {folder / first}"
                raise InputError(f"the saved data set has no split {split!r}", where=folder, fix=fix)
            loaded = loaded[split]
        self._data = loaded
        files = [Path(one["filename"]) for one in loaded.cache_files]
        digests = "".join(f"{file_facts(file).sha256}\n" for file in files)
        self.fingerprint = hashlib.sha256(digests.encode()).hexdigest()

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        return table_of(self._data, self.name, wanted)


def table_of(data: Any, name: str, wanted: AbstractSet[str] | None) -> Table:
    """The rows of a data set of ``datasets``, of the columns that are wanted.

    Raises:
        InputError: it has no rows.
    """
    if not len(data):
        raise InputError("the data set has no records", where=name, fix="choose another split")
    names = list(data.column_names)
    chosen = data if wanted is None else data.select_columns([one for one in names if one in wanted])
    table = Table()
    table.places.begin(name)
    for value in chosen:
        table.add(None, value, None)
    table.columns.update(dict.fromkeys((one for one in names if one not in chosen.column_names), len(data)))
    return table


class SavedSource:
    """A data set of the Hub whose ``lines`` were saved in a file; the fingerprint is the data set's.

    Args:
        path: path of the file.
        name: name of the data set.
        fingerprint: fingerprint of the data set.
        fix: command that saves it again.

    Raises:
        InputError: the file is not there, or not as it was saved.
    """

    kind = "rows"

    def __init__(self, path: Path, name: str, fingerprint: str, fix: str) -> None:
        self.name, self.fingerprint, self._path, self._fix = name, fingerprint, path, fix
        try:
            with path.open(encoding="ascii") as lines:
                found = digest_of(line.removesuffix("\n") for line in lines)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the saved data set: {error}", where=path, fix=fix) from None
        if found != fingerprint:
            raise InputError("the saved data set is damaged: checksum mismatch", where=path, fix=fix)

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        table = Table()
        table.places.begin(self.name)
        with self._path.open(encoding="ascii") as lines:
            for line in lines:
                table.add(None, json.loads(line), wanted)
        return table


def digest_of(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()
