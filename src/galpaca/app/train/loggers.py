"""The run's loggers, kept open until its record is complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from galpaca.app.train.instantiate import Engine
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from rich.console import Console


@contextmanager
def loggers_of(engine: Engine, folder: RunFolder, record: RunRecord, console: Console) -> Iterator[list[Logger]]:
    """Creates the loggers, closes those with ``close``, and prints the ``next_command`` of those that have one."""
    loggers = engine.make_loggers(folder=folder, run_id=record.id)
    exit_code = 1
    try:
        yield loggers
        exit_code = 0
    finally:
        for logger in loggers:
            if close := getattr(logger, "close", None):
                close(exit_code)
            if command := getattr(logger, "next_command", None):
                console.print(f"{type(logger).__name__}: to complete what it has, use {command}")
