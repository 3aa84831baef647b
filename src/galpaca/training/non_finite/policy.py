"""What comes of a step whose loss or gradient is not a finite number, by the run's policy."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import lightning as L
import torch

from galpaca.data.collate import StepBatch
from galpaca.errors import GalpacaError
from galpaca.runs.lines import NonFiniteFinding, NonFiniteLine
from galpaca.training.module import InstructionTuner, StepOutcome
from galpaca.training.non_finite.search import find_non_finite
from galpaca.training.non_finite.update_guard import UpdateGuard
from galpaca.training.specs import GuardSpec


class Checkpoints(Protocol):
    """What the policy needs of them, on all ranks together."""

    def finish(self, trainer: L.Trainer) -> None:
        """Returns when the checkpoint under way counts."""

    def go_back(self, trainer: L.Trainer) -> int:
        """Puts the newest one's weights and moments in their modules and returns its step; 0 where there is none."""


class NonFinitePolicy:
    """Acts on a step whose update was left out. Called by all ranks together, at the same step.

    Args:
        spec: the policy.
        record: takes what was found, on rank 0.
        example_of: the record's number of an example of the plan.

    Attributes:
        checkpoints: the run's, where it has any.
    """

    checkpoints: Checkpoints | None = None

    def __init__(
        self,
        spec: GuardSpec,
        record: Callable[[NonFiniteLine], None] = lambda line: None,
        example_of: Callable[[int], int] = int,
    ) -> None:
        self.spec, self.record, self.example_of = spec, record, example_of
        self.guard = UpdateGuard(holds=spec.on_non_finite != "skip")
        self._count = 0
        self._overflows = 0

    def act(self, trainer: L.Trainer, step: StepBatch, loss: float, grad_norm: float) -> dict[str, Any]:
        """Records the step, and goes back to the last checkpoint if that is the policy.

        Returns:
            Fields of the step's line of metrics that say so.

        Raises:
            GalpacaError: the policy is to stop, or it has happened too often.
        """
        tuner = cast(InstructionTuner, trainer.lightning_module)
        found = [
            replace(one, examples=tuple(map(self.example_of, step.planned.micro_batches[one.rank][one.micro_batch])))
            for one in find_non_finite(tuner, step)
        ]
        self._count += 1
        policy = self.spec.on_non_finite if self._count <= self.spec.max_skips else "stop"
        back = 0
        if self.checkpoints is not None:
            self.checkpoints.finish(trainer)  # the one under way is of a step before
            back = self.checkpoints.go_back(trainer) if policy == "rollback" else 0
        if policy == "rollback" and not back:
            policy = "stop"
        if trainer.is_global_zero:
            everyone = [i for rank in step.planned.micro_batches for m in rank for i in m]
            examples = tuple(sorted(self.example_of(i) for i in everyone))
            self.record(NonFiniteLine(step=step.index + 1, policy=policy, found=tuple(found), examples=examples))
        if policy == "stop":
            raise self._error(step, found, loss, grad_norm)
        self.guard.release()
        return {"non_finite": True, "skipped": True} | ({"rolled_back_to": back} if back else {})

    def again(self, trainer: L.Trainer, steps: Sequence[StepBatch]) -> list[StepOutcome]:
        """Makes steps once more that were computed while updates were left out."""
        tuner = cast(InstructionTuner, trainer.lightning_module)
        progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
        ready, completed = progress.ready, progress.completed
        with torch.enable_grad():
            outcomes = [tuner.training_step(step, step.index)["outcome"] for step in steps]
        progress.ready, progress.completed = ready, completed  # Lightning has counted them already
        return outcomes

    def check_overflows(self, step: StepBatch, *, overflowed: bool, scale: float) -> None:
        """With a loss scaler: it lowers its scale at each overflow, and in vain where the weights are the cause.

        Raises:
            GalpacaError: too many in a row.
        """
        self._overflows = self._overflows + 1 if overflowed else 0
        if self._overflows > self.spec.max_skips:
            raise GalpacaError(
                f"gradients overflowed in {self._overflows} consecutive steps",
                where=f"step {step.index + 1}",
                why=f"the loss scale is down to {scale:g}; weights or data are at fault, and no update was made since",
                fix="precision=bf16-mixed, or a smaller optim.lr, with a new run.name; guard.max_skips=N allows more",
            )

    def _error(self, step: StepBatch, found: Sequence[NonFiniteFinding], loss: float, grad_norm: float) -> GalpacaError:
        modules = [
            f"first in {one.module} of rank {one.rank}, with examples {', '.join(map(str, one.examples))}"
            for one in found
        ]
        return GalpacaError(
            f"loss or gradient is not finite (loss {loss:g}, gradient norm {grad_norm:g})",
            where=f"step {step.index + 1}",
            why="; ".join(modules) or "all module outputs are finite, so it arose in the gradients",
            fix="check the examples listed in non_finite.jsonl; a smaller optim.lr with a new run.name; or "
            "guard.on_non_finite=skip (or rollback) continues without the step",
        )
