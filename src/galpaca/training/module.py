"""The optimizer step: all its micro-batches, one division, one update."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from galpaca.data.collate import MicroBatch, StepBatch
from galpaca.model.loss import nll_sum
from galpaca.model.parts import plain_name
from galpaca.model.tuning.method import TuningMethod
from galpaca.training.clock import Mark, mark
from galpaca.training.figures import Figures
from galpaca.training.gradient_factor import gradient_factor, scale_gradients
from galpaca.training.loss_scale import gradients_measured, inverse_scale
from galpaca.training.memory import keep_freed_memory
from galpaca.training.non_finite.update_guard import UpdateGuard
from galpaca.training.optimization import learning_rate, make_optimizer
from galpaca.training.specs import OptimizerSpec
from galpaca.training.strategies.step_strategy import StepStrategy


@dataclass(frozen=True)
class StepOutcome:
    """What came of a step, still on the device.

    Attributes:
        nll_sum: summed negative log-likelihood of this rank's target tokens.
        grad_norm: gradient norm before clipping.
        lr: learning rate.
        begin, backward_end, end: times of the step's start, of the end of backward, and of the end of the update.
        figures: callbacks' own, as ``InstructionTuner.figures``.
    """

    nll_sum: Tensor
    grad_norm: Tensor
    lr: float
    begin: Mark
    backward_end: Mark
    end: Mark
    figures: Figures = field(default_factory=dict)


@dataclass
class _Validated:
    """What a validation has computed of one source so far.

    Attributes:
        nll_sums: of this rank's micro-batches, on the device.
        num_targets: target tokens of all ranks.
    """

    nll_sums: list[Tensor] = field(default_factory=list)
    num_targets: int = 0


class InstructionTuner(L.LightningModule):
    """A model under instruction tuning.

    Args:
        model: model with float32 weights, in training mode.
        optimizer: the optimizer, its schedule and clipping.
        num_steps: steps of the whole run, which the schedule spans.
        seed: base seed for dropout.
        tuning: which parameters are trained, of which family.
        guard: skips non-finite updates, if no loss scaler does.

    Attributes:
        figures: further figures of the step at hand, which callbacks put here as ``GROUP/NAME``: numbers, or scalar
            tensors, which stay on the device until the step's line of ``metrics.jsonl`` is written. Rank 0's count.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: OptimizerSpec,
        *,
        num_steps: int,
        seed: int,
        tuning: TuningMethod,
        guard: UpdateGuard | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = model
        self.optimizer_spec = optimizer
        self.num_steps = num_steps
        self.seed = seed
        self.guard = guard or UpdateGuard(holds=True)
        self.figures: dict[str, Tensor | float] = {}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(tuning.trained(plain_name(name)))
        self._decays = tuning.family.decays
        self._nll_sum: Tensor | None = None
        self._grad_norm: Tensor | None = None
        self._validation: dict[int, _Validated] = {}

    def configure_model(self) -> None:
        self.strategy.materialize(self.network)

    def on_train_start(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()

    def forward(
        self, micro_batch: MicroBatch, compute: Callable[[PreTrainedModel, MicroBatch], Tensor] = nll_sum
    ) -> Tensor:
        """Calls the model: by default the summed negative log-likelihood of the target tokens, a scalar."""
        return compute(self.network, micro_batch)

    def training_step(self, step: StepBatch, batch_idx: int) -> dict[str, StepOutcome]:
        """One optimizer step.

        The gradient is that of (sum of negative log-likelihoods over all ranks and micro-batches) / (target tokens of
        the step). Strategies average gradients over ranks, which the factor ``world_size`` undoes.
        """
        begin = mark(self.device)
        self.figures = {}
        optimizer = cast(Optimizer, self.optimizers())
        optimizer.zero_grad()
        lr = learning_rate(self.optimizer_spec, step.index, self.num_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        scale = self.trainer.world_size / max(1, step.planned.num_target_tokens)
        total = torch.zeros((), device=self.device, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        last = len(step.micro_batches) - 1
        for m, micro_batch in enumerate(step.micro_batches):
            self.seed_micro_batch(step.index, m)
            with self.strategy.accumulating(last=m == last):
                loss = self.strategy.run_micro_batch(micro_batch)
                self.manual_backward(loss * scale)
            total += loss.detach()
        backward_end = mark(self.device)
        # Rounding of bfloat16 moments: the same on all ranks, or copies of the model would part.
        seed_randomness(self.seed, step.index, len(step.micro_batches), rank=0)
        self._nll_sum = total
        optimizer.step()
        self.guard.after_update(cast(Optimizer, self.optimizers(use_pl_optimizer=False)))
        assert self._grad_norm is not None
        outcome = StepOutcome(total, self._grad_norm, lr, begin, backward_end, mark(self.device), self.figures)
        return {"outcome": outcome}  # in a mapping, since Lightning takes nothing else

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # The hook's place is after all gradients are there and before the update. They are read once, for their norm.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        unscale = None if scaler is None else inverse_scale(scaler)
        norm = self.strategy.grad_norm()
        self._grad_norm = norm if unscale is None else norm * unscale
        scale_gradients(optimizer, gradient_factor(self._grad_norm, self.optimizer_spec.clip_norm, unscale))
        if scaler is not None:
            gradients_measured(scaler, optimizer, ~self._grad_norm.isfinite())
            return
        assert self._nll_sum is not None
        is_bad = ~(self._grad_norm.isfinite() & self._nll_sum.isfinite())
        self.guard.before_update(optimizer, self.strategy.on_any_rank(is_bad))

    def seed_micro_batch(self, step: int, micro_batch: int) -> None:
        """Makes this rank's dropout in a micro-batch what it is in that step, however often it is computed."""
        seed_randomness(self.seed, step, micro_batch, self.global_rank)

    def validation_step(self, step: StepBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        validated = self._validation.setdefault(dataloader_idx, _Validated())
        validated.nll_sums += [self.strategy.run_micro_batch(one) for one in step.micro_batches]
        validated.num_targets += step.planned.num_target_tokens  # of all ranks, padding left out

    def on_validation_epoch_start(self) -> None:
        self._validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Logs ``val_loss``: one division over all target tokens of all ranks. Of several sources also that of each,
        as ``val_loss/NAME``.
        """
        validated = [self._validation[index] for index in sorted(self._validation)]
        sums = torch.stack([torch.stack([one.double().cpu() for one in each.nll_sums]).sum() for each in validated])
        nll_sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        num_targets = [each.num_targets for each in validated]
        losses = {"val_loss": nll_sums.sum() / max(1, sum(num_targets))}
        parts = self.trainer.datamodule.data.val_parts()  # type: ignore[attr-defined]
        for (name, _), of_source, count in zip(parts, nll_sums, num_targets, strict=True):
            if name:
                losses[f"val_loss/{name}"] = of_source / max(1, count)
        self._validation.clear()
        for name, loss in losses.items():
            # The same on all ranks already; sync_dist only keeps Lightning from warning that it might not be.
            self.log(name, loss.float(), logger=False, sync_dist=True)

    def configure_optimizers(self) -> Optimizer:
        trained = ((name, one) for name, one in self.strategy.named_parameters() if one.requires_grad)
        return make_optimizer(self.optimizer_spec, trained, self._decays)

    @property
    def model(self) -> PreTrainedModel:
        """The model that is trained."""
        return self.network

    @property
    def strategy(self) -> StepStrategy:
        return cast(StepStrategy, self.trainer.strategy)


def seed_randomness(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Makes what follows random by (seed, step, micro-batch, rank) and nothing else.

    A resumed run needs no saved state of any generator.
    """
    words = np.random.SeedSequence([seed, step, micro_batch, rank]).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
