"""``galpaca split``: writes a run's records for training, validation and a test, as they were."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galpaca.app.console import make_console, show_rows
from galpaca.app.run_data import RunData, load_run_data, run_of
from galpaca.errors import InputError
from galpaca.files.atomic import replace_file


def split(run: Path, out: Path) -> None:
    """Writes ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``; of several sources, a file for each.

    Raises:
        InputError: no run, its records are gone or changed, or the folder has such files.
    """
    console = make_console()
    folder = run_of(str(run))
    if folder is None:
        raise InputError("not a run folder: no run.json", where=run, fix="galpaca split runs/NAME --out FOLDER")
    files = _files(load_run_data(folder, console))
    taken = [out / name for name in files if (out / name).exists()]
    if taken:
        raise InputError("the file exists already", where=taken[0], fix="--out ANOTHER_FOLDER")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, lines in files.items():
            replace_file(out / name, "".join(lines))
    except OSError as error:
        what = f"cannot write: {error.strerror}"
        raise InputError(what, where=error.filename or out, fix="--out ANOTHER_FOLDER") from None
    show_rows(console, "split", [(str(out / name), f"{len(lines):,} records") for name, lines in files.items()])


def _files(run: RunData) -> dict[str, list[str]]:
    """Content of each file: the rows of its side, with all their columns."""
    tables = {one.spec.name: one.source.table() for one in reversed(run.found.sources)}
    held_out = {one.spec.name: one.source.table() for one in run.found.sources if not one.spec.epochs}
    files: dict[str, list[str]] = {}
    for side in run.sides():
        for one in run.records(side):
            table = held_out.get(one.source, tables[one.source]) if side == "validation" else tables[one.source]
            name = f"{one.source}-{side}.jsonl" if one.source else f"{side}.jsonl"
            files.setdefault(name, []).append(_line(table.values[one.index], table.where(one.index)))
    return files


def _line(row: Mapping[str, Any], where: str) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False)
        is_text = text.encode(errors="replace").decode() == text  # half of a surrogate pair is none
        return (text if is_text else json.dumps(row)) + "\n"
    except TypeError as error:
        why = "JSON has no such values"
        fix = "train on a file without that column, or with its text"
        raise InputError(f"a column cannot be written: {error}", where=where, why=why, fix=fix) from None
