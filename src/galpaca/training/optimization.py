"""AdamW and its learning rate."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from galpaca.training.compact_adamw import CompactAdamW
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


def decays(name: str) -> bool:
    """Whether a parameter of OPT has weight decay: all but biases and layer norms, as in ``transformers.Trainer``."""
    return not name.endswith(".bias") and "layer_norm." not in name


def make_adamw(spec: OptimizerSpec, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
    """AdamW over two groups, with and without decay; wrappers' prefixes in the names do no harm."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named_parameters:
        groups[decays(name)].append(parameter)
    options: dict[str, Any] = {"lr": spec.lr, "betas": (spec.beta1, spec.beta2), "eps": spec.eps}
    if spec.moments_dtype == "bfloat16":
        kind: type[Optimizer] = CompactAdamW
    else:
        kind, options["fused"] = AdamW, spec.fused
    return kind(
        [
            {"params": groups[True], "weight_decay": spec.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        **options,
    )


def begin_moments(optimizer: Optimizer, parameter: nn.Parameter, updates: int) -> dict[str, Tensor]:
    """Gives a parameter the state it would have after some updates, its moments 0 until they are filled.

    Args:
        optimizer: optimizer from ``make_adamw``, without state for the parameter.
        parameter: one of its parameters.
        updates: number of updates made.
    """
    # A fused update reads the number on its own device.
    counted_on = parameter.device if optimizer.param_groups[0].get("fused") else torch.device("cpu")
    dtype = torch.bfloat16 if isinstance(optimizer, CompactAdamW) else parameter.dtype
    state = optimizer.state[parameter]
    state["step"] = torch.tensor(float(updates), device=counted_on)
    for moment in ("exp_avg", "exp_avg_sq"):
        state[moment] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
    return state
