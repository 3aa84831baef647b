"""Hooks of runs that log to W&B."""

import time
from typing import Any


def slow_steps(seconds: float) -> None:
    """Training starts when the run is at W&B, or cannot be sent, and each step takes a while."""
    from galpaca.runs.metrics import MetricsFile
    from galpaca.tracking.service import Run
    from galpaca.training.loggers.wandb_logger import WandbLogger

    start, write = WandbLogger.__init__, MetricsFile.write

    def started(self: WandbLogger, run: Run) -> None:
        start(self, run)
        while self._thread is not None and not self.follower.was_connected and not self.follower.is_lost:
            time.sleep(0.01)

    def write_slowly(self: MetricsFile, lines: Any) -> None:
        write(self, lines)
        time.sleep(seconds)

    WandbLogger.__init__ = started  # type: ignore[method-assign]
    MetricsFile.write = write_slowly  # type: ignore[method-assign]


def impatient(seconds: float) -> None:
    """As ``slow_steps``, and whoever waits for W&B at the end, or after an error, waits no longer than this."""
    from galpaca.tracking import follower
    from galpaca.tracking.service import Run
    from galpaca.training.loggers import wandb_logger

    slow_steps(0.02)
    defaults = Run.__init__.__defaults__
    assert defaults is not None
    Run.__init__.__defaults__ = (*defaults[:-1], seconds)
    wandb_logger._LEFT_SECONDS = seconds
    follower._FIRST_PAUSE_SECONDS = seconds
