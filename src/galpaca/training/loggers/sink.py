"""Lines of metrics on their way to Lightning's loggers, and what a person sees at once."""

import math
import warnings
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from lightning.pytorch.loggers import Logger

from galpaca.runs.lines import CheckpointLine, MetricsLine, StepLine
from galpaca.tracking.rows import named

# Steps to compare with: fewer say nothing, older ones are of another time.
FEWEST, MOST = 10, 50
FACTOR = 10.0
# A small model's step of milliseconds may take ten times as long without anything being wrong.
LEAST_SECONDS = 5.0


class LoggerSink:
    """Sends lines to loggers under grouped names.

    One that fails gets no more of them: a logger is never worth a run. A logger that has ``alert(title, text)`` gets
    them of a loss or gradient that is not finite, and of a step that takes far longer than those before it.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)
        self._seconds: deque[float] = deque(maxlen=MOST)

    def write(self, lines: Sequence[MetricsLine | CheckpointLine]) -> None:
        for line in lines:
            figures = named(line)
            for logger in list(self.loggers):
                self._send(logger, figures, line.step)
            if isinstance(line, StepLine):
                self._watch(line)

    def _send(self, logger: Logger, figures: dict[str, Any], step: int) -> None:
        try:
            logger.log_metrics(figures, step=step)
        except Exception as error:  # such as a service that a scheduler's signals have reached, too
            self.loggers.remove(logger)
            message = f"{type(logger).__name__} gets no metrics from step {step} on ({type(error).__name__}: {error})"
            warnings.warn(f"{message}; metrics.jsonl has them all", stacklevel=2)

    def _watch(self, line: StepLine) -> None:
        if _is_bad(line):
            self._alert(
                "The loss is not finite",
                f"Step {line.step}: loss {line.loss}, gradient norm {line.grad_norm}. Its update was skipped.",
            )
        if line.step_seconds:
            if is_stall(line.step_seconds, list(self._seconds)):
                self._alert("A step took unusually long", f"Step {line.step}: {line.step_seconds:.1f} s.")
            self._seconds.append(line.step_seconds)

    def _alert(self, title: str, text: str) -> None:
        for logger in self.loggers:
            if alert := getattr(logger, "alert", None):
                alert(title, text)


def _is_bad(line: StepLine) -> bool:
    """Under a loss scaler, gradients that overflow are no accident."""
    return bool(line.non_finite) or (line.loss is not None and not math.isfinite(line.loss))


def is_stall(step_seconds: float, earlier_seconds: Sequence[float]) -> bool:
    """Whether a step took ten times the median of the last fifty, and long enough for a person to care.

    Args:
        step_seconds: duration of the step.
        earlier_seconds: durations of all earlier steps, or of the last fifty.
    """
    recent = earlier_seconds[-MOST:]
    return len(recent) >= FEWEST and step_seconds >= max(LEAST_SECONDS, FACTOR * median(recent))
