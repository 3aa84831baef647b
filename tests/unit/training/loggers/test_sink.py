from math import inf, nan
from typing import Any

import pytest

from galpaca.runs.lines import StepLine
from galpaca.training.loggers.sink import LoggerSink


class Listening:
    """A logger that takes alerts."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.alerts: list[tuple[str, str]] = []

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.rows.append((step, metrics))

    def alert(self, title: str, text: str) -> None:
        self.alerts.append((title, text))


class Deaf:
    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        pass


def line(step: int, **more: Any) -> StepLine:
    return StepLine(**{"step": step, "loss": 1.0, "grad_norm": 1.0, "step_seconds": 1.0, **more})


@pytest.mark.parametrize(
    ("more", "is_bad"),
    [
        ({"loss": nan}, True),
        ({"grad_norm": inf, "non_finite": True, "skipped": True}, True),
        ({"grad_norm": inf, "loss_scale": 2.0, "skipped": True}, False),  # a scaler at work
        ({"loss": None}, False),  # no target
    ],
)
def test_a_loss_that_is_not_finite_is_reported(more: dict[str, Any], is_bad: bool) -> None:
    logger = Listening()
    LoggerSink([Deaf(), logger]).write([line(1, **more)])  # type: ignore[list-item]
    assert bool(logger.alerts) == is_bad


def test_a_step_that_takes_very_long_is_reported_once() -> None:
    logger = Listening()
    LoggerSink([logger]).write([line(n, step_seconds=30.0 if n == 12 else 1.0) for n in range(1, 20)])  # type: ignore[list-item]
    assert logger.alerts == [("A step took unusually long", "Step 12: 30.0 s.")]
    assert len(logger.rows) == 19
