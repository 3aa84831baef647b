"""What a person sees when a run is complete: its figures, where everything is, and what to type next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from galpaca.app.card import result_rows
from galpaca.app.console import show_rows
from galpaca.app.ranks import global_rank
from galpaca.app.report import write_report
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console


def finish(folder: RunFolder, record: RunRecord, console: Console) -> None:
    """Writes the report and sums up, on rank 0."""
    if global_rank() != 0:
        return
    places = [("model", str(folder.model)), *_report_row(folder, console)]
    show_rows(console, "done", [*result_rows(record.content["final"]), *places])
    show_rows(console, "next", next_commands(folder))


def next_commands(folder: RunFolder) -> list[tuple[str, str]]:
    """What one does with a released model, ready to be typed."""
    model, run = shlex.quote(str(folder.model)), shlex.quote(str(folder.path))
    return [
        ("talk with it", f"galpaca chat {model}"),
        ("ask it once", f'galpaca generate {model} --instruction "..."'),
        ("its figures", f"galpaca report {run}"),
        ("share it", f"galpaca export {run} {shlex.quote(folder.path.name + '-hub')} --push OWNER/NAME"),
    ]


def _report_row(folder: RunFolder, console: Console) -> list[tuple[str, str]]:
    """A page that cannot be written must not make a failure of a run whose model is there, nor go unsaid."""
    try:
        return [("report", str(write_report([folder.path])))]
    except Exception as error:
        console.print(f"[yellow]warning:[/yellow] the report is not written: {error}", markup=True)
        return []
