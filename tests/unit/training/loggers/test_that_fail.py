"""A logger is never worth a run."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from galpaca.errors import StoppedBySignal
from galpaca.runs.lines import StepLine
from galpaca.training.callbacks.preemption import PreemptionNotice
from galpaca.training.loggers.sink import LoggerSink


class Dead(CSVLogger):
    """As W&B's when its service is gone."""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionResetError("Connection lost")

    def mark_preempting(self) -> None:
        raise ConnectionResetError("Connection lost")


class Alive(CSVLogger):
    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.steps: list[int | None] = []
        self.marked = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.steps.append(step)

    def mark_preempting(self) -> None:
        self.marked = True


def test_one_that_fails_is_left_out_from_then_on_and_reported_once() -> None:
    """Under ``proctrack/linuxproc`` SLURM's SIGTERM ends W&B's service, too; the run died before its checkpoint."""
    alive = Alive()
    sink = LoggerSink([Dead("/nowhere"), alive])
    with pytest.warns(UserWarning, match=r"Dead gets no metrics from step 3 on \(ConnectionResetError.*metrics.jsonl"):
        sink.write([StepLine(step=3, loss=1.0)])
    sink.write([StepLine(step=4, loss=1.0)])
    assert alive.steps == [3, 4]


def test_one_that_cannot_be_reported_that_the_run_comes_back_does_not_take_the_stops_place() -> None:
    alive = Alive()
    trainer: Any = SimpleNamespace(loggers=[Dead("/nowhere"), alive])
    stop = StoppedBySignal("stopped", signal.SIGUSR1)
    PreemptionNotice(lambda number: number == signal.SIGUSR1).on_exception(trainer, trainer, stop)
    assert alive.marked
