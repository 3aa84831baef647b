"""``galpaca sync``: uploads to W&B what runs logged offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.table import Table

from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError, Problems
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.lines import MetricsLine
from galpaca.runs.lock import is_held
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console

    from galpaca.training.tracking.segments import Segment
    from galpaca.training.tracking.service import Run


@dataclass(frozen=True)
class Logged:
    """The W&B logs of a run.

    Attributes:
        place: the run's name and project at W&B.
        segments: its log files, oldest first.
        lines: lines of ``metrics.jsonl``.
        is_running: whether a process is writing in the folder.
    """

    folder: RunFolder
    place: Run
    segments: list[Segment]
    lines: list[MetricsLine]
    is_running: bool


def sync(runs: Sequence[str], *, dry_run: bool = False) -> None:
    """Uploads what is not at W&B yet, run by run; a failed run does not stop the others.

    Args:
        runs: run folders.
        dry_run: only list it, which needs no network and no key.

    Raises:
        InputError: not a run folder, no W&B logs in it, or no API key.
        GalpacaError: no network; or, at the end, the runs that are not completely uploaded.
    """
    from galpaca.training.tracking import service

    console = make_console()
    logged = _find(runs)
    for one in logged:
        _show(console, one)
    if dry_run:
        return
    waiting = [one for one in logged if one.is_running or not _is_uploaded(one)]
    if waiting:
        _check_ready()
    failed = Problems()
    for one in waiting:
        try:
            _upload(one)
        except GalpacaError as error:
            failed.add(error.what, where=one.folder.path, why=error.why, fix=error.fix)
        else:
            console.print(f"[green]{one.folder.path} is uploaded to W&B[/green]")
    if waiting:
        service.shut_down()
    _raise(failed)


def _find(runs: Sequence[str]) -> list[Logged]:
    problems = Problems()
    found = []
    for run in runs:
        try:
            found.append(_read(Path(run)))
        except InputError as error:
            problems.extend([error])
    problems.raise_any()
    return found


def _read(path: Path) -> Logged:
    from galpaca.training.tracking.segments import find_segments

    folder = find_run(path, recorded=True)
    record = RunRecord(folder.record)
    segments = find_segments(folder.path, record.id)
    place = _place(folder, record.id, segments)
    if place is None:
        raise InputError(
            "the run logged nothing to W&B",
            where=path,
            fix="train with logger=wandb; metrics.jsonl has all metrics",
        )
    return Logged(folder, place, segments, list(read_metrics(folder.metrics)), is_held(folder.lock))


def _place(folder: RunFolder, run_id: str, segments: Sequence[Segment]) -> Run | None:
    """The run at W&B, from its configuration or, if the logger changed since, from its last log."""
    from galpaca.training.loggers import wandb
    from galpaca.training.tracking.service import Run

    config = yaml.safe_load(folder.config.read_text(encoding="utf-8")) if folder.config.is_file() else {}
    asked = dict(config.get("logger") or {})
    if asked.pop("_target_", None) == f"{wandb.__module__}.{wandb.__qualname__}":
        asked["tags"] = tuple(asked.get("tags") or ())
        return Run(folder.path, folder.name, run_id, **asked)
    begun = [one for one in segments if one.started]
    return Run(folder.path, folder.name, run_id, begun[-1].project, begun[-1].entity or None) if begun else None


def _is_uploaded(logged: Logged) -> bool:
    from galpaca.training.tracking.segments import uploaded_up_to
    from galpaca.training.tracking.upload import number_of

    last = max(map(number_of, logged.lines), default=-1)
    return all(one.uploaded for one in logged.segments if one.started) and last <= uploaded_up_to(logged.folder.path)


def _show(console: Console, logged: Logged) -> None:
    table = Table(box=None, header_style="cyan", pad_edge=False)
    for header in ("start", "size", "rows", "steps"):
        table.add_column(header, justify="right" if header in ("size", "rows") else "left", no_wrap=True)
    table.add_column("state", overflow="fold")  # the one that gives way where a terminal, or a log, is narrow
    for one in logged.segments:
        steps = f"{min(one.steps):,} to {max(one.steps):,}" if one.steps else "-"
        state = _state(one, is_running=logged.is_running and one is logged.segments[-1])
        table.add_row(one.file.parent.name, f"{one.bytes / 1024:,.0f} KiB", f"{len(one.rows):,}", steps, state)
    console.print(str(logged.folder.path), style="bold", markup=False)
    console.print(table)
    if missing := _missing(logged):
        console.print(f"  {missing:,} lines of metrics.jsonl are in no log and will be sent from the file")


def _missing(logged: Logged) -> int:
    from galpaca.training.tracking.segments import uploaded_up_to
    from galpaca.training.tracking.upload import number_of

    there = {number for one in logged.segments for number in one.lines}
    up_to = uploaded_up_to(logged.folder.path)
    return sum(number not in there and number > up_to for number in map(number_of, logged.lines))


def _state(segment: Segment, *, is_running: bool) -> str:
    if is_running:
        return "running"
    if not segment.started:
        return "empty"
    if segment.uploaded:
        return "uploaded"
    return "not uploaded" if segment.offline else "not verified"


def _check_ready() -> None:
    """Checks that W&B has a key and can be reached.

    Raises:
        InputError: no API key.
        GalpacaError: no network.
    """
    os.environ["WANDB_MODE"] = "online"  # whoever asks for an upload means it
    from galpaca.training.tracking import service

    if not service.has_key():
        raise InputError("no W&B API key", where="WANDB_API_KEY", fix="wandb login, or WANDB_API_KEY=...")
    if not service.is_reachable():
        raise GalpacaError(
            "the W&B server does not respond",
            where=service.server(),
            fix="rerun the command with network access, e.g. on a login node; nothing is lost",
        )


def _upload(logged: Logged) -> None:
    if logged.is_running:
        raise GalpacaError(
            "the run is still running and was skipped", fix="wait for it; online, it uploads earlier logs itself"
        )
    from galpaca.training.tracking.upload import upload

    upload(logged.place, logged.segments, logged.lines)


def _raise(failed: Problems) -> None:
    """Raises the collected errors with exit code 1: they are not user errors."""
    try:
        failed.raise_any()
    except InputError as error:
        raise GalpacaError(str(error)) from None
