"""The state that an optimizer keeps of each parameter: what it must be like, and how it starts when it is restored."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from galpaca.errors import InputError, Problems
from galpaca.model.tensors import dtype_name
from galpaca.training.optimizers.factory import OptimizerFactory

# By torch's convention the number of updates made, as a scalar, besides what has the parameter's shape.
STEP = "step"
_SHAPE = (2, 3)  # of a parameter to try an optimizer on


def first_state(factory: OptimizerFactory, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What an optimizer keeps of a small parameter after its first update."""
    return _tried(factory, dtype, device)[0]


def check_state(factory: OptimizerFactory, dtype: torch.dtype, device: torch.device) -> None:
    """Checks that a checkpoint can hold all that the optimizer keeps.

    Args:
        dtype, device: those of the parameters.

    Raises:
        InputError: it keeps other state than it names, state of another shape or dtype, or changes its groups.
    """
    where, problems = f"optim._target_={factory.target()}", Problems()
    try:
        state, changed = _tried(factory, dtype, device)
    except Exception as error:  # whatever it raises would be raised in the first step
        raise InputError(f"its update fails ({type(error).__name__}: {error})", where=where) from error
    named = factory.state_dtypes(dtype_name(dtype))
    for name in sorted(state.keys() | named.keys()):
        if name != STEP and (what := _mismatch(state.get(name), named.get(name))):
            problems.add(f"its state {name!r} {what}", where=where, fix="another optimizer, or a factory that names it")
    for name in changed:
        problems.add(
            f"it changes {name!r} of its parameter groups, which checkpoints do not restore",
            where=where,
            fix="an optimizer that keeps what it learns in the state of parameters",
        )
    problems.raise_any()


def begin_state(parameter: nn.Parameter, first: Mapping[str, Any], updates: int | None) -> dict[str, Any]:
    """State as it would be after some updates, all but their count 0 until it is filled.

    Args:
        first: state of another parameter after its first update, on the same device.
        updates: number of updates made, if the optimizer counts them.
    """
    state: dict[str, Any] = {}
    for name, value in first.items():
        if name == STEP:
            count = updates or 0
            state[name] = torch.full_like(value, count) if isinstance(value, Tensor) else type(value)(count)
        else:
            like = {"dtype": value.dtype, "device": value.device, "pin_memory": value.is_pinned()}
            state[name] = torch.zeros(parameter.shape, **like)
    return state


def updates_made(optimizer: Optimizer) -> int | None:
    """How many updates the optimizer has made, if it counts them; steps that were left out do not count."""
    states = [state for state in optimizer.state.values() if state]
    if not states:
        return 0
    return int(states[0][STEP]) if STEP in states[0] else None


def _tried(factory: OptimizerFactory, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """The state of a parameter after its first update, and which values of its group the update has changed."""
    parameter = nn.Parameter(torch.ones(_SHAPE, dtype=dtype, device=device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = factory.make([{"params": [parameter], "lr": 1e-3}])
    if hasattr(optimizer, "one_kernel"):
        optimizer.one_kernel = False  # to compile takes seconds, and the state is the same
    (group,) = optimizer.param_groups
    before = {name: value for name, value in group.items() if name != "params"}
    optimizer.step()
    changed = [name for name in group if name != "params" and (name not in before or group[name] != before[name])]
    return dict(optimizer.state[parameter]), changed


def _mismatch(value: Any, dtype: str | None) -> str:
    """What is wrong with state of which the optimizer says that it has a dtype; empty where nothing is."""
    if dtype is None:
        return f"is not among those that it names ({_described(value)})"
    if value is None:
        return "is not there after an update"
    if not isinstance(value, Tensor) or tuple(value.shape) != _SHAPE:
        return f"must have the parameter's shape, {_SHAPE}; it is {_described(value)}"
    return "" if dtype_name(value.dtype) == dtype else f"must be {dtype}; it is {_described(value)}"


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}, {dtype_name(value.dtype)}"
