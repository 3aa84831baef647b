"""Word to loggers that a run which stops is coming back."""

from collections.abc import Callable
from contextlib import suppress

import lightning as L

from galpaca.errors import StoppedBySignal


class PreemptionNotice(L.Callback):
    """Calls ``mark_preempting`` of loggers that have it, before Lightning closes them.

    Args:
        comes_back: whether a run that a signal has stopped will be started again by the scheduler.
    """

    def __init__(self, comes_back: Callable[[int], bool]) -> None:
        self.comes_back = comes_back

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        marks = [getattr(logger, "mark_preempting", None) for logger in trainer.loggers]
        if isinstance(exception, StoppedBySignal) and any(marks) and self.comes_back(exception.number):
            for mark in filter(None, marks):
                with suppress(Exception):  # a logger that does not answer must not take the stop's place
                    mark()
