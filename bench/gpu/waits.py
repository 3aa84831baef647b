"""Whether the host ever waits for the GPU within a step."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from bench.gpu.training import WARM_UP_STEPS, Case, measure
from galpaca.data.examples import EncodedExamples
from galpaca.training.specs import OptimizerSpec


class RefuseWaits(L.Callback):
    """Makes every wait for the GPU an error, from the first timed step on; but for the reads of figures.

    What lies between steps is included: fetching, collating and copying the next one.

    Args:
        read_every_steps: after how many steps figures are read.
    """

    def __init__(self, read_every_steps: int) -> None:
        self.read_every_steps = read_every_steps
        self.steps = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch.index >= WARM_UP_STEPS:
            torch.cuda.set_sync_debug_mode("error")
            self.steps += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch.index + 1) % self.read_every_steps == 0:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        torch.cuda.set_sync_debug_mode("default")


def no_waits(
    examples: EncodedExamples, device: torch.device, precision: str, optim: OptimizerSpec | None = None
) -> dict[str, Any]:
    """Trains the smallest shape with waits forbidden.

    Raises:
        RuntimeError: torch's, at the first wait.
    """
    refuse = RefuseWaits(WARM_UP_STEPS)
    try:
        case = Case("no waits", "125m", precision, max_tokens=16_384, optim=optim or OptimizerSpec())
        measure(case, examples, device, [refuse])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": refuse.steps, "passed": refuse.steps > 0}
