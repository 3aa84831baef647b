"""Hooks of runs that log to W&B."""

import time
from typing import Any


def slow_steps(seconds: float) -> None:
    """Training begins when W&B has, and each step takes a while: what is logged can be watched as it comes."""
    from galpaca.runs.metrics import MetricsFile
    from galpaca.training.tracking.logger import WandbLogger

    begin, write = WandbLogger.__init__, MetricsFile.write

    def begun(self: WandbLogger, *arguments: Any) -> None:
        begin(self, *arguments)
        while not (self._session is not None and hasattr(self._session, "wandb")) and not self._failed:
            time.sleep(0.01)

    def write_slowly(self: MetricsFile, lines: Any) -> None:
        write(self, lines)
        time.sleep(seconds)

    WandbLogger.__init__ = begun  # type: ignore[method-assign]
    MetricsFile.write = write_slowly  # type: ignore[method-assign]


def impatient(seconds: float) -> None:
    """As ``slow_steps``, and whoever waits for W&B at the end waits no longer than this."""
    from galpaca.training.tracking import logger, service

    slow_steps(0.02)
    service.FINISH_SECONDS = logger._QUEUE_SECONDS = seconds
