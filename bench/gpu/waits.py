"""Whether the host ever waits for the GPU within a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch

from bench.gpu.case import Case
from bench.gpu.training import WARM_UP_STEPS, free_memory, train
from galpaca.data.examples import EncodedExamples
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.specs import OptimizerSpec

# As many as a quick GPU makes in a second or two, so that several readings fall among them.
_STEPS = 12


class RefuseWaits(L.Callback):
    """Makes every wait for the GPU an error, from the first step after warm-up to the end of training.

    What lies between steps is included: fetching, collating and copying the next one.

    Attributes:
        steps: how many were refused to wait.
    """

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch.index >= WARM_UP_STEPS:
            torch.cuda.set_sync_debug_mode("error")
            self.steps += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        torch.cuda.set_sync_debug_mode("default")


class WaitingMetrics(StepMetrics):
    """Reads figures with waits allowed: a reading is where the host is meant to wait.

    When one is due is up to seconds (``consensus.Pace``), not to a number of steps: after a slow first step every
    later one may be read, after quick ones every fourth.

    Attributes:
        num_readings: so far.
    """

    num_readings = 0

    def flush(self, trainer: L.Trainer, *, share: bool = False) -> None:
        self.num_readings += 1
        with _waits_allowed():
            super().flush(trainer, share=share)


@contextmanager
def _waits_allowed() -> Iterator[None]:
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def no_waits(
    examples: EncodedExamples, device: torch.device, precision: str, optim: OptimizerSpec | None = None
) -> dict[str, Any]:
    """Trains the smallest shape with waits forbidden everywhere but in readings.

    Raises:
        RuntimeError: torch's, at the first wait.
    """
    free_memory(device)
    case = Case("no waits", "125m", precision, max_tokens=16_384, optim=optim or OptimizerSpec())
    return check_waits(case, examples, device)


def check_waits(case: Case, examples: EncodedExamples, device: torch.device) -> dict[str, Any]:
    """The same of any case."""
    refuse, made = RefuseWaits(), []

    def metrics(*args: Any, **kwargs: Any) -> WaitingMetrics:
        made.append(WaitingMetrics(*args, **kwargs))
        return made[-1]

    try:
        train(case, examples, device, [refuse], num_steps=WARM_UP_STEPS + _STEPS, make_metrics=metrics)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": refuse.steps, "readings": made[-1].num_readings, "passed": refuse.steps == _STEPS}
