"""``galpaca runs``: a table of runs with the configuration in which they differ."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from galpaca.app.console import make_console
from galpaca.errors import InputError, Problems
from galpaca.files.atomic import replace_file
from galpaca.formatting import format_or
from galpaca.model.spec import OF_RANDOM_WEIGHTS
from galpaca.report.run import flat
from galpaca.runs.configuration import read_configuration
from galpaca.runs.folder import RunFolder
from galpaca.runs.found import runs_below
from galpaca.runs.history import History, final_figures, read_history
from galpaca.runs.recipe import FREE
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import RunContent
from galpaca.runs.standings import Standing, best_of, data_of, ranked
from galpaca.runs.state import Kind, run_state

# Keys and groups that say where a run is, and what is saved and shown of it: nothing to compare runs by.
_LEFT_OUT = (
    *("run", "data.cache_dir"),
    *FREE["what is saved, measured and shown"],
    *FREE["what happens after a fault"],
    *FREE["the released folder"],
)
_ABSENT = object()


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        run: the shortest name that distinguishes it from the others.
        path: run folder.
        state: ``complete``, ``not started``, or a kind of ``galpaca.runs.state`` with the path, as ``running at step 3
            of 9``; and what of its files cannot be read.
        step, num_steps: steps done, and planned.
        loss: loss of the last step.
        val_loss: loss of the last validation.
        tokens_per_second: mean over all steps.
        hours: time in training steps.
        config: this run's values of the configuration keys that differ between the runs.
        data: beginning of the fingerprints of data and tokenizer: losses of others are of other things.
        best: it has the lowest validation loss of several runs with the same data.
    """

    run: str
    path: str
    state: str
    step: int
    num_steps: int | None
    loss: float | None
    val_loss: float | None
    tokens_per_second: float | None
    hours: float
    config: Mapping[str, Any]
    data: str = ""
    best: bool = False


def show_runs(paths: Sequence[Path], *, as_json: bool, out: Path | None) -> None:
    """Prints the runs in these folders, lowest loss first.

    Args:
        paths: run folders, or folders with runs anywhere below them.
        as_json: print one line of JSON per run instead of a table.
        out: file to write the table to, atomically.

    Raises:
        InputError: a folder without runs, or ``out`` cannot be written.
    """
    rows = compare(find_runs(paths))
    table = _table(rows)
    if out is not None:
        _write(out, table)
    if as_json:
        print("\n".join(json.dumps(asdict(row)) for row in rows))
    elif sys.stdout.isatty():
        _show(rows)
    else:
        print(table)


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """All runs in these folders and below them, each once.

    Raises:
        InputError: folders without a run, all reported at once.
    """
    with Problems() as problems:
        found: dict[Path, RunFolder] = {}
        for path in paths:
            here = {path: RunFolder(path.parent, path.name) for path in runs_below(path.resolve())}
            if not here:
                problems.add(
                    "contains no run" if path.is_dir() else "no such folder",
                    where=path,
                    fix="pass a run folder, or a folder that contains run folders, e.g. runs",
                )
            found |= here
    return list(found.values())


def compare(folders: Sequence[RunFolder]) -> list[Row]:
    """The runs, those with the same data together, sorted by validation loss (runs without one last), then by loss."""
    parent = Path(os.path.commonpath([folder.root for folder in folders]))
    rows = [_read(folder, parent) for folder in folders]
    differing = _differing([row.config for row in rows if row.config])
    rows = [replace(row, config={key: row.config[key] for key in differing if key in row.config}) for row in rows]
    standings = [Standing(row.run, row.data, row.loss, row.val_loss) for row in rows]
    best = best_of(standings)
    return [replace(rows[place], best=place in best) for place in ranked(standings)]


def _read(folder: RunFolder, parent: Path) -> Row:
    """The run as its files describe it so far, with all of its configuration."""
    unreadable = []
    config: dict[str, Any] = {}
    record = RunContent()
    history = History()
    try:
        record = read_content(folder.record) or record
    except (InputError, OSError):
        unreadable.append(folder.record.name)
    try:
        config = flat(read_configuration(folder.config))
    except (InputError, OSError):
        unreadable.append(folder.config.name)
    try:
        history = read_history(folder.metrics)
    except OSError:
        history.unreadable += 1
    if history.unreadable:
        unreadable.append(folder.metrics.name)
    notes = [f"{name} cannot be read" for name in unreadable]
    final = final_figures(history.steps, history.validations)
    num_steps = record.num_steps
    return Row(
        run=str(folder.path.relative_to(parent)),
        path=str(folder.path),
        state="; ".join([_state(run_state(folder, record, history).kind, history.last_step, num_steps), *notes]),
        step=history.last_step,
        num_steps=num_steps,
        loss=final.loss,
        val_loss=final.val_loss,
        tokens_per_second=final.tokens_per_second,
        hours=round(final.train_seconds / 3600, 4),
        config=_compared(config),
        data=data_of(record),
    )


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys by which runs are compared."""
    unused = [f"model.{name}" for name in OF_RANDOM_WEIGHTS] if config.get("model.path") else []
    return {
        key: value
        for key, value in config.items()
        if key not in unused and not any(key == name or key.startswith(f"{name}.") for name in _LEFT_OUT)
    }


def _state(kind: Kind, step: int, num_steps: int | None) -> str:
    if kind == "complete":
        return kind
    if kind == "stopped" and step == 0:
        return "not started"
    return f"{kind} at step {step:,} of {num_steps:,}" if num_steps else f"{kind} at step {step:,}"


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key, _ABSENT) != configs[0].get(key, _ABSENT) for config in configs)]


def _show(rows: Sequence[Row]) -> None:
    """A table for a terminal; of paths, only their ends."""
    [titles, *lines] = _cells(rows)
    lines = [[*line[: len(_TITLES)], *(cell.rpartition("/")[2] for cell in line[len(_TITLES) :])] for line in lines]
    names = [title.rpartition(".")[2] for title in titles]
    console = make_console()
    room, num_shown = console.width, 0
    for column in zip(names, *lines, strict=True):
        room -= 2 + max(map(len, column))
        num_shown += room >= 0 or num_shown < len(_TITLES)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, name in zip(titles[:num_shown], names, strict=False):
        table.add_column(name, overflow="fold", justify="right" if title in _NUMBERS else "left")
    for row, line in zip(rows, lines, strict=True):
        table.add_row(*map(escape, line[:num_shown]), style="bold green" if row.best else None)
    console.print(table)
    if left_out := names[num_shown:]:
        console.print(f"no room for {len(left_out)} more differing keys: --out FILE writes all", style="dim")
    if any(row.best for row in rows):
        console.print("green: the lowest validation loss of runs with the same data", style="dim")


def _table(rows: Sequence[Row]) -> str:
    """A Markdown table with aligned columns."""
    lines = _cells(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = [f"{'-' * max(3, width)}" for width in widths]
    return "\n".join(_line(line, widths) for line in [lines[0], rule, *lines[1:]])


_TITLES = ("run", "state", "steps", "loss", "val_loss", "tokens/s", "hours")
_NUMBERS = _TITLES[2:]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """The titles, and a line for each run."""
    keys = list(dict.fromkeys(key for row in rows for key in row.config))
    data = ["data"] if len({row.data for row in rows}) > 1 else []
    lines = [[*_TITLES, *data, *keys]]
    for row in rows:
        figures = [
            format_or(row.loss, ".4f"),
            format_or(row.val_loss, ".4f"),
            format_or(row.tokens_per_second, ",.0f"),
            f"{row.hours:.2f}",
        ]
        values = [_value(row.config[key]) if key in row.config else "-" for key in keys]
        name = f"{row.run} (best)" if row.best else row.run
        lines.append([name, row.state, f"{row.step:,}", *figures, *([row.data] if data else []), *values])
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(f"{cell:<{max(3, width)}}" for cell, width in zip(cells, widths, strict=True)) + " |"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("|", "\\|").replace("\n", " ")


def _write(path: Path, table: str) -> None:
    try:
        replace_file(path, table + "\n")
    except OSError as error:
        fix = "--out FILE in an existing folder"
        raise InputError(f"cannot write the table: {error.strerror}", where=path, fix=fix) from None
