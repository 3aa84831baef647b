"""What follows backward in a step, on fake tensors: unscaling, norm, clipping and update, by the project's own code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from bench.bytes.fake_step import CUDA
from galpaca.model.tuning.full import FullTuning
from galpaca.training.module import InstructionTuner
from galpaca.training.specs import OptimizerSpec, PrecisionSpec
from galpaca.training.strategies import Single


class FakeUpdate:
    """The end of a step of one process; its parts are called one by one, in Lightning's order.

    Args:
        model: with float32 parameters on the card.
        spec: optimizer and clipping.
        precision: as in ``conf/precision``.
    """

    def __init__(self, model: PreTrainedModel, spec: OptimizerSpec, precision: str) -> None:
        strategy, plugin = Single().make("gpu", PrecisionSpec(precision))
        strategy.model, strategy._precision_plugin = model, plugin
        self.tuner = InstructionTuner(model, spec, num_steps=100, seed=0, tuning=FullTuning())
        trainer: Any = SimpleNamespace(strategy=strategy, precision_plugin=plugin, world_size=1)
        self.tuner._trainer = trainer
        strategy._lightning_module = self.tuner
        self.tuner._nll_sum = torch.empty((), device=CUDA)
        self.scaler = getattr(plugin, "scaler", None)
        self.optimizer: Optimizer = self.tuner.configure_optimizers()

    def __call__(self) -> None:
        for parameter in self.tuner.parameters():
            parameter.grad = torch.empty_like(parameter)
        if self.scaler is not None:
            self.scaler.scale(torch.empty((), device=CUDA))  # of the loss; the first makes the scale
        self.tuner.on_before_optimizer_step(self.optimizer)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.tuner.guard.after_update(self.optimizer)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
