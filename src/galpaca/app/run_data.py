"""The records of a run that was started, by what they were for; and which of other records it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from galpaca.app.config.composition import parse, register
from galpaca.app.config.schema import Config
from galpaca.app.train.data import FoundData, PreparedData, find_data, prepare_data
from galpaca.data.categories import COLUMN as CATEGORY
from galpaca.data.hashes import near_hash
from galpaca.data.reading import load_records
from galpaca.data.records import Record
from galpaca.data.split import SIDES
from galpaca.errors import GalpacaError, InputError, first_line
from galpaca.inference.places import run_of_name
from galpaca.runs.configuration import damaged, read_configuration
from galpaca.runs.folder import RunFolder
from galpaca.runs.recipe import DATA
from galpaca.runs.record import read_content


@dataclass(frozen=True)
class SplitRecord:
    """A record of a run.

    Attributes:
        source: name of its source; empty where there is but one.
        index: its number in the source, from 0.
        category: of its column of that name, if there is one.
    """

    source: str
    index: int
    record: Record
    category: Any


@dataclass(frozen=True)
class RunData:
    """The data of a run, found and encoded again, or still in the cache."""

    folder: RunFolder
    found: FoundData
    data: PreparedData

    def sides(self) -> list[str]:
        """The sides that have records."""
        split = self.data.split
        found = {"train": split.train, "validation": split.val, "test": split.test}
        return [side for side, indices in found.items() if len(indices)]

    def records(self, side: str) -> list[SplitRecord]:
        """The records on a side of the split: ``train``, ``validation`` or ``test``.

        Raises:
            InputError: there are none.
        """
        split = self.data.split
        wanted = {"train": split.train, "validation": split.val, "test": split.test}[side]
        found = list(self._records(set(wanted.tolist())))
        if not found:
            key = {"validation": "data.val_fraction", "test": "data.test_fraction"}.get(side, "data.path")
            why = f"it was started without {key}"
            fix = f"train a run with {key}, or use --records FILE"
            raise InputError(f"the run has no {side} records", where=self.folder.path, why=why, fix=fix)
        return found

    def _records(self, wanted: set[int]) -> Iterator[SplitRecord]:
        first = 0
        for one, count in zip(self.found.sources, self._counts(), strict=True):
            reading = replace(one.spec.spec.reading, kept=(CATEGORY,))
            records = load_records(one.source, reading)
            for place in range(first, first + count):
                if place in wanted:
                    index = int(self.data.split.examples.record_indices[place])
                    category = records.columns[CATEGORY][index]
                    yield SplitRecord(one.spec.name, index, records.records[index], category)
            first += count

    def _counts(self) -> Sequence[int]:
        """Examples of each source."""
        split = self.data.split
        return [one.count for one in split.sources] or self._of_one_name()

    def _of_one_name(self) -> Sequence[int]:
        """Of one source, and perhaps of records to validate on behind it."""
        if len(self.found.sources) == 1:
            return [len(self.data.split.examples)]
        return [len(self.data.split.train) + len(self.data.split.test), len(self.data.split.val)]

    def num_trained_on(self, records: Sequence[Record]) -> int:
        """How many of these records the run was trained on, as ``near_hash`` compares them."""
        hashes = np.array([near_hash(record) for record in records], np.uint64)
        return int(np.isin(hashes, self.data.split.examples.near_hashes[self.data.split.train]).sum())


def run_of(model: str) -> RunFolder | None:
    """The run that a model is of: its folder, a step of it, or the folder of its model; None for any other."""
    path = run_of_name(model).resolve()
    for folder in (path, path.parent):
        if (folder / "run.json").is_file() and (folder / "config.yaml").is_file():
            return RunFolder(folder.parent, folder.name)
    return None


def load_run_data(folder: RunFolder, console: Console) -> RunData:
    """Finds the records of a run again.

    Raises:
        InputError: they are gone, or not those that the run was started with.
    """
    config = _config_of(folder)
    spec = config.data.below(_started_in(folder, config.run.root))
    found = find_data(spec, folder.path.parent)
    data = prepare_data(spec, found, str(folder.base), console)
    content = read_content(folder.record)
    recorded = content.recipe.settings.get(DATA) if content and content.recipe else None
    if recorded not in (data.fingerprint, data.former_fingerprint):
        raise InputError(
            "the records are not those that the run was started with",
            where=folder.path,
            why=f"its data have the fingerprint {str(recorded)[:12]}, and those found now {data.fingerprint[:12]}",
            fix="restore the records",
        )
    return RunData(folder, found, data)


def _config_of(folder: RunFolder) -> Config:
    register()
    try:
        return parse(OmegaConf.create(read_configuration(folder.config)))
    except InputError as error:
        raise error if str(folder.config) in error.where else damaged(folder.config, str(error)) from None
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise damaged(folder.config, first_line(error)) from None


def _started_in(folder: RunFolder, root: str) -> Path:
    """The folder that relative paths of the run begin at, as far as the folder of all runs tells."""
    parts, place = Path(root).parts, folder.path.parent.absolute()
    if parts and not Path(root).is_absolute() and place.parts[-len(parts) :] == parts:
        return place.parents[len(parts) - 1]
    return Path()


@dataclass(frozen=True)
class TrainedOn:
    """How many records a model was trained on.

    Attributes:
        count: None where that could not be checked.
        why: why it could not.
    """

    count: int | None
    why: str = ""


def trained_on(model: str, records: Sequence[Record], console: Console) -> TrainedOn:
    """How many of these records a model was trained on, where its run says so."""
    folder = run_of(model)
    if folder is None:
        return TrainedOn(None, "it is not of a run on this machine")
    try:
        return TrainedOn(load_run_data(folder, console).num_trained_on(records))
    except GalpacaError as error:
        return TrainedOn(None, f"its records cannot be read: {error.what}")


def fingerprint_of(records: Sequence[SplitRecord]) -> str:
    """SHA-256 of the texts of records."""
    digest = hashlib.sha256()
    for one in records:
        digest.update("\0".join(one.record.texts()).encode() + b"\1")
    return digest.hexdigest()


SPLITS = {"val": "validation", "test": "test", "train": "train"}
assert set(SPLITS.values()) == SIDES.keys()
