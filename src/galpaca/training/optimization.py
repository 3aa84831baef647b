"""The learning rate of a step, and the optimizer over a model's parameters."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from galpaca.model.parts import plain_name
from galpaca.training.optimizers.conditional import ConditionalOptimizer
from galpaca.training.specs import OptimizerSpec

_DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def learning_rate(spec: OptimizerSpec, step: int, num_steps: int) -> float:
    """The rate of a step, as ``transformers.get_cosine_schedule_with_warmup`` gives it.

    As there, the first step of a warm-up has the rate 0.

    Args:
        step: step, counted from 0.
        num_steps: steps of the whole run.
    """
    warmup_steps = math.ceil(num_steps * spec.warmup_ratio)
    if step < warmup_steps:
        return spec.lr * step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return spec.lr * _DECAYS[spec.schedule](progress)


def make_optimizer(
    spec: OptimizerSpec, named_parameters: Iterable[tuple[str, nn.Parameter]], decays: Callable[[str], bool]
) -> Optimizer:
    """The optimizer over two groups, with and without decay.

    Args:
        decays: whether a parameter has weight decay, by its name in the family's model.

    It takes ``found_inf``, a scalar on the device, whatever it is: see ``ConditionalOptimizer``.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        (decayed if decays(plain_name(name)) else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": spec.lr},
        {"params": others, "lr": spec.lr, "weight_decay": 0.0},
    ]
    optimizer = spec.factory.make(groups)
    return optimizer if getattr(optimizer, "_step_supports_amp_scaling", False) else ConditionalOptimizer(optimizer)
