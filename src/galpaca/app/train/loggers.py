"""The run's loggers, kept open until its record is complete."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.loggers import Logger

from galpaca.app.train.context import RunContext
from galpaca.app.train.instantiate import Engine


@contextmanager
def loggers_of(engine: Engine, run: RunContext) -> Iterator[list[Logger]]:
    """Creates the loggers, closes those with ``close``, and prints the ``next_command`` of those that have one."""
    loggers = engine.make_loggers(folder=run.folder, run_id=run.record.content.id)
    exit_code = 1
    try:
        yield loggers
        exit_code = 0
    finally:
        for logger in loggers:
            if close := getattr(logger, "close", None):
                close(exit_code)
            if command := getattr(logger, "next_command", None):
                run.console.print(f"{type(logger).__name__}: to complete what it has, use {command}")
