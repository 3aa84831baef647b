"""Every step's figures, gathered from all ranks and handed to whoever shows or keeps them."""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import lightning as L
import torch

from galpaca.data.collate import StepBatch
from galpaca.errors import GalpacaError
from galpaca.runs.shutdown import Shutdown, signal_of
from galpaca.runs.spikes import LossSpikes
from galpaca.training.clock import Mark, mark
from galpaca.training.guard import NonFinitePolicy
from galpaca.training.module import StepOutcome
from galpaca.training.speed import StepSpeed

Line = dict[str, Any]


class Sink(Protocol):
    """Takes the lines of ``metrics.jsonl`` in order, on rank 0."""

    def write(self, lines: Sequence[Line]) -> None: ...


class Poll:
    """A question that all ranks answer along with their figures.

    Args:
        answer: this rank's, at the time of the reading.

    Attributes:
        ranks: all ranks' answers at the last reading, the same on every rank; empty before the first.
    """

    def __init__(self, answer: Callable[[], float]) -> None:
        self.answer = answer
        self.ranks: list[float] = []


class Pace:
    """After how many steps (or validation batches) figures are read again: about once a second, and the same on all
    ranks.

    A read waits for the device, so quick steps share one. Slow steps must not: a signal is seen at a read, and a
    scheduler does not wait for eight steps of two minutes.

    Args:
        most: never more than this.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.seconds = Poll(self._seconds_each)
        self._taken, self._wanted, self._since = 0, 1, time.monotonic()

    def due(self) -> bool:
        """Told of each step; True when it is time."""
        self._taken += 1
        return self._taken >= self._wanted

    def restart(self) -> None:
        """After a read, which has told all ranks how long the first rank's steps take."""
        each = self.seconds.ranks[0]
        self._wanted = max(1, min(self.most, int(1 / each) if each > 0 else self.most))
        self._taken, self._since = 0, time.monotonic()

    def _seconds_each(self) -> float:
        return (time.monotonic() - self._since) / max(1, self._taken)


@dataclass(frozen=True)
class _PendingStep:
    batch: StepBatch
    outcome: StepOutcome
    previous_end: Mark  # of the step before, or of what came between


@dataclass(frozen=True)
class _ReadStep:
    step: _PendingStep
    nll_sum: float  # over all ranks
    grad_norm: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.nll_sum) and math.isfinite(self.grad_norm)


class StepMetrics(L.Callback):
    """Collects a step's figures on the device and reads them back about once a second.

    The same read tells the ranks whether any of them was asked to stop, so the agreement costs nothing of its own.

    Args:
        sinks: receivers of the lines.
        shutdown: shutdown flag of this process.
        steps_per_epoch: steps of an epoch.
        every_steps: most steps between two reads; a read waits for the device.
        speed: computes the speed of a step.
        policy: policy for non-finite steps.
        spikes: flags loss spikes.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        shutdown: Shutdown,
        *,
        steps_per_epoch: int,
        every_steps: int = 1,
        speed: StepSpeed,
        policy: NonFinitePolicy,
        spikes: LossSpikes,
    ) -> None:
        self.sinks, self.shutdown = sinks, shutdown
        self.steps_per_epoch = steps_per_epoch
        self.speed, self.policy, self.spikes = speed, policy, spikes
        self._pace = Pace(every_steps)
        self._urgency = Poll(lambda: self.shutdown.urgency)
        self.polls = [self._urgency, self._pace.seconds]
        self._pending: list[_PendingStep] = []
        self._previous_end: Mark = 0.0
        self._validation_began = 0.0
        self._peak_memory_bytes = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.shutdown.deferred = True
        self.restart_clock(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        outcome = outputs["outcome"]
        self._pending.append(_PendingStep(batch, outcome, self._previous_end))
        self._previous_end = outcome.end
        if self._pace.due():
            self.flush(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self._pace.due():
            self.flush(trainer, share=True)  # whether to stop: a validation may take minutes

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.flush(trainer)
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            loss = float(trainer.callback_metrics["val_loss"])  # waits for the device
            seconds = round(time.perf_counter() - self._validation_began, 3)
            self._emit([{"step": trainer.global_step, "val_loss": loss, "val_seconds": seconds}])
        self.restart_clock(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.flush(trainer)

    @property
    def agreed_stop(self) -> signal.Signals | None:
        """The strongest signal that any rank got, as far as ranks have told each other."""
        urgency = max(self._urgency.ranks, default=0)
        return signal_of(urgency) if urgency else None

    def restart_clock(self, trainer: L.Trainer) -> None:
        """Keeps what was no step (a validation, a checkpoint) out of the steps' seconds."""
        self._previous_end = mark(trainer.strategy.root_device)

    def flush(self, trainer: L.Trainer, *, share: bool = False) -> None:
        """Reads back all pending steps. Called by all ranks at the same step.

        Args:
            share: tell each other the answers to polls even where no step is pending.
        """
        if not self._pending and not share:
            return
        pending, self._pending = self._pending, []
        while True:
            figures = self._gather(trainer, pending)
            has_scaler = getattr(trainer.precision_plugin, "scaler", None) is not None
            bad = None if has_scaler else next((place for place, one in enumerate(figures) if not one.is_finite), None)
            self._tell(trainer, figures[:bad])
            if bad is None:
                return
            self._act(trainer, figures[bad])
            pending = pending[bad + 1 :]
            if self.policy.guard.holds:  # they were computed, and their updates left out
                outcomes = self.policy.again(trainer, [one.batch for one in pending])
                pending = [replace(one, outcome=outcome) for one, outcome in zip(pending, outcomes, strict=True)]

    def _gather(self, trainer: L.Trainer, pending: Sequence[_PendingStep]) -> list[_ReadStep]:
        """Reads back the figures of steps, the same on all ranks, and all ranks' answers to polls."""
        device = trainer.strategy.root_device
        answers = [float(poll.answer()) for poll in self.polls]
        told = torch.tensor([peak_memory_bytes(device), *answers], dtype=torch.float64, device=device)
        sums = [p.outcome.grad_norm.to(p.outcome.nll_sum.dtype) for p in pending], [p.outcome.nll_sum for p in pending]
        local = torch.cat([told, *(torch.stack(kind).double() for kind in sums if kind)])
        ranks = trainer.strategy.all_gather(local).reshape(trainer.world_size, -1).cpu()
        for place, poll in enumerate(self.polls, start=1):
            poll.ranks = ranks[:, place].tolist()
        self._pace.restart()
        self._peak_memory_bytes = int(ranks[:, 0].max())
        grad_norms, nll_sums = ranks[:, len(told) :].reshape(len(ranks), 2, -1).unbind(1)
        return [
            _ReadStep(step, nll_sum, grad_norm)
            for step, nll_sum, grad_norm in zip(
                pending, nll_sums.sum(dim=0).tolist(), grad_norms[0].tolist(), strict=True
            )
        ]

    def _tell(self, trainer: L.Trainer, figures: Sequence[_ReadStep], **more: Any) -> None:
        scaler = _scaler_figures(trainer)
        if trainer.is_global_zero:
            shared = {"peak_memory_bytes": self._peak_memory_bytes, **scaler, **_compiler_figures()}
            self._emit([self._line(one, shared) | more for one in figures])
        for one in figures if scaler else ():
            overflowed = not math.isfinite(one.grad_norm)
            self.policy.check_overflows(one.step.batch, overflowed=overflowed, scale=scaler["loss_scale"])

    def _act(self, trainer: L.Trainer, one: _ReadStep) -> None:
        batch = one.step.batch
        loss = one.nll_sum / max(1, batch.planned.num_target_tokens)
        try:
            told = self.policy.act(trainer, batch, loss, one.grad_norm)
        except GalpacaError:
            self._tell(trainer, [one], non_finite=True, skipped=True)
            raise
        self._tell(trainer, [one], **told)

    def _line(self, read: _ReadStep, shared: Mapping[str, Any]) -> Line:
        pending, grad_norm = read.step, read.grad_norm
        step, outcome = pending.batch.planned, pending.outcome
        line = {
            "step": step.index + 1,
            "epoch": round((step.index + 1) / self.steps_per_epoch, 4),
            "loss": read.nll_sum / step.num_target_tokens if step.num_target_tokens else None,
            "lr": outcome.lr,
            "grad_norm": grad_norm,
            "examples": step.num_examples,
            "tokens": step.num_tokens,
            "target_tokens": step.num_target_tokens,
            "micro_batches": len(pending.batch.micro_batches),
            **self.speed.figures(pending.batch, pending.previous_end, outcome),
            **shared,
        }
        if line["loss"] is not None and math.isfinite(line["loss"]) and self.spikes.add(line["loss"]):
            line["spike"] = True
        if "loss_scale" in shared:
            # The scaler leaves out an update whose gradients overflowed; no other trace of it remains.
            line["skipped"] = not math.isfinite(grad_norm)
        return line

    def _emit(self, lines: list[Line]) -> None:
        for sink in self.sinks:
            sink.write(lines)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory allocated on the GPU so far, or, on a CPU, most memory the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _scaler_figures(trainer: L.Trainer) -> dict[str, float]:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return {"loss_scale": scaler.get_scale()} if scaler is not None else {}


def _compiler_figures() -> dict[str, int]:
    """How many graphs were compiled so far: a number that grows late in a run is time lost."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    graphs = dynamo.counters["stats"]["unique_graphs"] if dynamo else 0
    return {"compiled_graphs": graphs} if graphs else {}
