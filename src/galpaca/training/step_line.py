"""A step as its line of ``metrics.jsonl``.

Its speed is counted in what is useful: real tokens, and the operations that the model needs for them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from galpaca.data.collate import StepBatch
from galpaca.estimate.flops import Architecture, Tuned, step_flops
from galpaca.runs.lines import StepLine
from galpaca.training.clock import Mark, seconds_between
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


@dataclass(frozen=True)
class StepSpeed:
    """Turns a step's times into figures.

    Attributes:
        architecture: architecture of the model.
        peak_flops: peak FLOP/s of all GPUs of the run together, if known.
        tuned: what of the model is trained.
    """

    architecture: Architecture
    peak_flops: float | None
    tuned: Tuned = field(default_factory=Tuned)

    def figures(self, batch: StepBatch, previous_end: Mark, outcome: StepOutcome) -> dict[str, float]:
        """The step's line of figures. Times are those of this rank's device.

        ``data_seconds`` is how long the device waited for the step: collation, copies and whatever else the host did.
        """
        step = batch.planned
        seconds = seconds_between(previous_end, outcome.end)
        figures = {
            "tokens_per_second": round(step.num_tokens / seconds, 1),
            "target_tokens_per_second": round(step.num_target_tokens / seconds, 1),
            "non_padding_fraction": round(step.num_tokens / batch.num_padded_tokens, 5),
            "step_seconds": round(seconds, 4),
            "data_seconds": round(seconds_between(previous_end, outcome.begin), 4),
            "forward_backward_seconds": round(seconds_between(outcome.begin, outcome.backward_end), 4),
            "optimizer_seconds": round(seconds_between(outcome.backward_end, outcome.end), 4),
        }
        if self.peak_flops:
            flops = step_flops(self.architecture, step.num_tokens, step.num_attention_pairs, self.tuned)
            figures["mfu"] = round(flops / seconds / self.peak_flops, 4)
        return figures


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
