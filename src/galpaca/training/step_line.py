"""A step as its line of ``metrics.jsonl``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from galpaca.data.collate import StepBatch
from galpaca.runs.lines import StepLine
from galpaca.training.clock import Mark
from galpaca.training.module import StepOutcome


@dataclass(frozen=True)
class PendingStep:
    """A step whose figures are on the device.

    Attributes:
        previous_end: of the step before, or of what came between.
    """

    batch: StepBatch
    outcome: StepOutcome
    previous_end: Mark


@dataclass(frozen=True)
class ReadStep:
    """A step whose figures have been read, the same on every rank.

    Attributes:
        nll_sum: over all ranks.
        grad_norm: before clipping.
        figures: callbacks' own, on rank 0.
    """

    step: PendingStep
    nll_sum: float
    grad_norm: float
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.nll_sum) and math.isfinite(self.grad_norm)

    @property
    def loss(self) -> float | None:
        """Per target token; None for a step without any."""
        num_targets = self.step.batch.planned.num_target_tokens
        return self.nll_sum / num_targets if num_targets else None


def step_line(
    read: ReadStep, *, steps_per_epoch: int, speed: Mapping[str, Any], shared: Mapping[str, Any], is_spike: bool
) -> StepLine:
    """A step's line of ``metrics.jsonl``.

    Args:
        steps_per_epoch: to compute the epoch of the step.
        speed: how fast the step was.
        shared: figures of the machine and of the loss scaler, which steps read together share.
        is_spike: the loss is flagged.
    """
    batch = read.step.batch
    step = batch.planned
    scaler = "loss_scale" in shared
    return StepLine(
        step=step.index + 1,
        epoch=round((step.index + 1) / steps_per_epoch, 4),
        loss=read.loss,
        lr=read.step.outcome.lr,
        grad_norm=read.grad_norm,
        examples=step.num_examples,
        tokens=step.num_tokens,
        target_tokens=step.num_target_tokens,
        micro_batches=len(batch.micro_batches),
        spike=is_spike or None,
        # The scaler leaves out an update whose gradients overflowed; no other trace of it remains.
        skipped=not math.isfinite(read.grad_norm) if scaler else None,
        extra=dict(read.figures),
        **speed,
        **shared,
    )
