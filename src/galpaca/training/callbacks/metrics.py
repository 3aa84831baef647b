"""Every step's figures, gathered from all ranks and handed to whoever shows or keeps them."""

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import lightning as L
import torch

from galpaca.data.collate import StepBatch
from galpaca.errors import GalpacaError
from galpaca.runs.lines import MetricsLine, StepLine, ValidationLine
from galpaca.runs.spikes import LossSpikes
from galpaca.training.clock import Mark, mark
from galpaca.training.consensus import Consensus
from galpaca.training.figures import check_figures, read_figures
from galpaca.training.non_finite.policy import NonFinitePolicy
from galpaca.training.step_line import PendingStep, ReadStep, StepSpeed, step_line


class Sink(Protocol):
    """Takes the lines of ``metrics.jsonl`` in order, on rank 0."""

    def write(self, lines: Sequence[MetricsLine]) -> None: ...


@dataclass(eq=False)
class StepMetrics(L.Callback):
    """Collects a step's figures on the device and reads them back about once a second.

    Attributes:
        sinks: receivers of the lines.
        consensus: of the ranks, whose answers are read along with the figures.
        steps_per_epoch: steps of an epoch.
        speed: computes the speed of a step.
        policy: policy for non-finite steps.
        spikes: flags loss spikes.
    """

    sinks: Sequence[Sink]
    consensus: Consensus
    steps_per_epoch: int
    speed: StepSpeed
    policy: NonFinitePolicy
    spikes: LossSpikes

    def __post_init__(self) -> None:
        self._pending: list[PendingStep] = []
        self._previous_end: Mark = 0.0
        self._validation_began = 0.0
        self._device = torch.device("cpu")
        self._memory = self.consensus.poll(lambda: peak_memory_bytes(self._device))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.consensus.shutdown.deferred = True
        self._device = trainer.strategy.root_device
        self.restart_clock(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        outcome = outputs["outcome"]
        check_figures(outcome.figures)
        self._pending.append(PendingStep(batch, outcome, self._previous_end))
        self._previous_end = outcome.end
        if self.consensus.pace.due():
            self.flush(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.consensus.pace.due():
            self.flush(trainer, share=True)  # whether to stop: a validation may take minutes

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.flush(trainer)
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            losses = {name: float(value) for name, value in trainer.callback_metrics.items() if "val_loss" in name}
            loss = losses.pop("val_loss")  # waits for the device
            seconds = round(time.perf_counter() - self._validation_began, 3)
            self._emit([ValidationLine(step=trainer.global_step, val_loss=loss, val_seconds=seconds, extra=losses)])
        self.restart_clock(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.flush(trainer)

    def restart_clock(self, trainer: L.Trainer) -> None:
        """Keeps what was no step (a validation, a checkpoint) out of the steps' seconds."""
        self._previous_end = mark(trainer.strategy.root_device)

    def flush(self, trainer: L.Trainer, *, share: bool = False) -> None:
        """Reads back all pending steps. Called by all ranks at the same step.

        Args:
            share: share the answers to polls even where no step is pending.
        """
        if not self._pending and not share:
            return
        pending, self._pending = self._pending, []
        read = self._read(trainer, pending)
        while (bad := _first_bad(trainer, read)) is not None:
            self._report(trainer, read[:bad])
            self._act(trainer, read[bad])
            later = [one.step for one in read[bad + 1 :]]
            read = self._read(trainer, self._again(trainer, later))
        self._report(trainer, read)

    def _read(self, trainer: L.Trainer, pending: Sequence[PendingStep]) -> list[ReadStep]:
        """Reads back the figures of steps, the same on all ranks, and all ranks' answers to polls."""
        kinds = [p.outcome.grad_norm.to(p.outcome.nll_sum.dtype) for p in pending], [p.outcome.nll_sum for p in pending]
        none = torch.empty(0, dtype=torch.float64, device=self._device)
        local = torch.cat([none, *(torch.stack(kind).double() for kind in kinds if kind)])
        ranks = self.consensus.gather(trainer.strategy, local)
        grad_norms, nll_sums = ranks.reshape(len(ranks), 2, -1).unbind(1)
        own = [p.outcome.figures if trainer.is_global_zero else {} for p in pending]
        columns = (nll_sums.sum(dim=0).tolist(), grad_norms[0].tolist(), read_figures(own, self._device))
        return [ReadStep(*row) for row in zip(pending, *columns, strict=True)]

    def _again(self, trainer: L.Trainer, later: Sequence[PendingStep]) -> Sequence[PendingStep]:
        """Makes the steps after one that was left out once more, where their updates were left out with it."""
        if not self.policy.guard.holds:
            return later
        outcomes = self.policy.again(trainer, [one.batch for one in later])
        return [replace(one, outcome=outcome) for one, outcome in zip(later, outcomes, strict=True)]

    def _report(self, trainer: L.Trainer, figures: Sequence[ReadStep], **more: Any) -> None:
        scaler = _scaler_figures(trainer)
        if trainer.is_global_zero:
            shared = {"peak_memory_bytes": int(max(self._memory.ranks)), **scaler, **_compiler_figures()}
            self._emit([replace(self._line(one, shared), **more) for one in figures])
        for one in figures if scaler else ():
            overflowed = not math.isfinite(one.grad_norm)
            self.policy.check_overflows(one.step.batch, overflowed=overflowed, scale=scaler["loss_scale"])

    def _act(self, trainer: L.Trainer, one: ReadStep) -> None:
        batch = one.step.batch
        loss = one.nll_sum / max(1, batch.planned.num_target_tokens)
        try:
            reaction = self.policy.act(trainer, batch, loss, one.grad_norm)
        except GalpacaError:
            self._report(trainer, [one], non_finite=True, skipped=True)
            raise
        self._report(trainer, [one], **reaction)

    def _line(self, read: ReadStep, shared: Mapping[str, Any]) -> StepLine:
        step, loss = read.step, read.loss
        return step_line(
            read,
            steps_per_epoch=self.steps_per_epoch,
            speed=self.speed.figures(step.batch, step.previous_end, step.outcome),
            shared=shared,
            is_spike=loss is not None and math.isfinite(loss) and self.spikes.add(loss),
        )

    def _emit(self, lines: Sequence[MetricsLine]) -> None:
        for sink in self.sinks:
            sink.write(lines)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory allocated on the GPU so far, or, on a CPU, most memory the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _first_bad(trainer: L.Trainer, read: Sequence[ReadStep]) -> int | None:
    """Place of the first step that is not finite; a loss scaler sees to those itself."""
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return None
    return next((place for place, one in enumerate(read) if not one.is_finite), None)


def _scaler_figures(trainer: L.Trainer) -> dict[str, float]:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return {"loss_scale": scaler.get_scale()} if scaler is not None else {}


def _compiler_figures() -> dict[str, int]:
    """How many graphs were compiled so far: a number that grows late in a run is time lost."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    graphs = dynamo.counters["stats"]["unique_graphs"] if dynamo else 0
    return {"compiled_graphs": graphs} if graphs else {}
