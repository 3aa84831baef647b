"""Optimizers of a user's own, as they would be written outside of galpaca."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from galpaca.training.optimizers.factory import OptimizerFactory


@dataclass(frozen=True)
class Sgd(OptimizerFactory):
    """torch's SGD with momentum.

    Attributes:
        momentum: what is kept of the last change.
        weight_decay: added to the gradient of matrices.
        foreach: a few kernels for many tensors.
    """

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"foreach"})

    momentum: float = 0.9
    weight_decay: float = 0.0
    foreach: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay, foreach=self.foreach)

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"momentum_buffer": None} if self.momentum else {}

    def describe(self) -> str:
        return f"SGD, momentum {self.momentum}, weight decay {self.weight_decay}"


@dataclass(frozen=True)
class Lion(OptimizerFactory):
    """Lion (Chen et al. 2023) with its momentum in bfloat16.

    Attributes:
        beta1: weight of the momentum in the update.
        beta2: decay rate of the momentum.
        weight_decay: weight decay of matrices.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        return LionOptimizer(groups, {"betas": (self.beta1, self.beta2), "weight_decay": self.weight_decay})

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"momentum": "bfloat16"}

    def describe(self) -> str:
        return f"Lion, betas {self.beta1} and {self.beta2}, weight decay {self.weight_decay}"


class LionOptimizer(Optimizer):
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = closure() if closure is not None else None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                momentum = state["momentum"].to(parameter.dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(momentum.lerp(parameter.grad, 1 - beta1).sign_(), alpha=-group["lr"])
                state["momentum"].copy_(momentum.lerp_(parameter.grad, 1 - beta2))
        return result


@dataclass(frozen=True)
class Adamax(OptimizerFactory):
    """torch's Adamax, which counts its updates on the host."""

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        return torch.optim.Adamax(groups)

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"exp_avg": None, "exp_inf": None}

    def describe(self) -> str:
        return "Adamax"


@dataclass(frozen=True)
class HostCounting(OptimizerFactory):
    """Steps that become smaller with the number of updates, which is a number of Python's."""

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        return HostCountingOptimizer(groups, {})

    @property
    def state(self) -> Mapping[str, str | None]:
        return {}

    def describe(self) -> str:
        return "gradient descent by ever smaller steps"


class HostCountingOptimizer(Optimizer):
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["step"] = state.get("step", 0) + 1
                    parameter.add_(parameter.grad, alpha=-group["lr"] / state["step"])
        return result


@dataclass(frozen=True)
class Adafactor(OptimizerFactory):
    """Keeps sums of rows and columns, which no range of a parameter's values has a part of."""

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        return torch.optim.Adafactor(groups)

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"row_var": None, "col_var": None}

    def describe(self) -> str:
        return "Adafactor"
