"""What models are measured on: prompts to answer, and records to take the loss of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from galpaca.app.options.names import ReadingOptions
from galpaca.app.run_data import SPLITS, fingerprint_of, load_run_data, run_of
from galpaca.data.categories import COLUMN as CATEGORY
from galpaca.data.categories import categories_of
from galpaca.data.questions import Question
from galpaca.data.reading import load_records
from galpaca.data.records import Record
from galpaca.data.sources.files import open_files
from galpaca.data.sources.table import Source
from galpaca.errors import InputError
from galpaca.files.checksums import json_digest


@dataclass(frozen=True)
class AskedPrompts:
    """The prompts that every model answers.

    Attributes:
        source: name of the file.
        categories: category of each question.
        fingerprint: SHA-256 of the file.
    """

    source: str
    questions: Sequence[Question]
    categories: Sequence[str]
    fingerprint: str


@dataclass(frozen=True)
class HeldOut:
    """Held-out records.

    Attributes:
        source: name of the file.
        categories: category of each record.
        fingerprint: SHA-256 of the file.
    """

    source: str
    records: Sequence[Record]
    categories: Sequence[str]
    fingerprint: str


def read_records(path: Path, options: ReadingOptions) -> HeldOut:
    """Reads held-out records.

    Raises:
        InputError: an invalid file, or no record has an output.
    """
    source = open_files(str(path))
    record_set = load_records(source, replace(options.reading(), kept=(CATEGORY,)))
    if not any(turn.output for record in record_set.records for turn in record.turns):
        raise InputError(
            f"none of {len(record_set):,} records has an output",
            where=path,
            why="the loss is computed on the outputs",
            fix="use records with outputs; for prompts alone, use galpaca compare --prompts",
        )
    categories = categories_of(record_set.columns[CATEGORY])
    return HeldOut(path.name, record_set.records, categories, fingerprint_as_read(source, options))


def fingerprint_as_read(source: Source, options: ReadingOptions) -> str:
    """SHA-256 of a file; with options that read other texts from it, of these, too."""
    return source.fingerprint if options == ReadingOptions() else json_digest([source.fingerprint, asdict(options)])


def records_of_split(models: Sequence[str], split: str, console: Console) -> HeldOut:
    """The validation or test records of the run that a model is of; of several runs, if these have the same data.

    Raises:
        InputError: no model is of a run, or they have different data; or the run has no such records.
    """
    folders = [folder for folder in map(run_of, models) if folder is not None]
    if not folders:
        why = "--split takes the records of a run"
        raise InputError("no model is of a run", where="--split", why=why, fix="name a run folder, or --records FILE")
    runs = [load_run_data(folder, console) for folder in folders]
    if len({run.data.fingerprint for run in runs}) > 1:
        names = " and ".join(str(folder.path) for folder in folders)
        fix = "galpaca split RUN --out FOLDER, and --records one of its files"
        raise InputError("the runs have different data", where="--split", why=names, fix=fix)
    found = runs[0].records(SPLITS[split])
    categories = categories_of([one.category for one in found])
    name = f"{folders[0].name} ({SPLITS[split]})"
    return HeldOut(name, [one.record for one in found], categories, fingerprint_of(found))
