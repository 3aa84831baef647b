"""Lets any optimizer leave out an update as a scalar on the device says."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class ConditionalOptimizer(Optimizer):
    """An optimizer that takes ``found_inf`` as torch's fused ones do, around one that does not.

    Parameters are updated one by one. Each is kept beforehand, along with its state, and put back on the device where
    the update is left out: it takes the memory of the largest parameter and its state, and the host does not wait.

    The host must know, and reads the flag, where the optimizer keeps a number on it, such as a count of updates, and
    until the first update has made the state.

    Args:
        inner: the optimizer; parameters and state are its own. It updates each parameter by itself.
    """

    _step_supports_amp_scaling = True  # torch's mark of optimizers that take ``found_inf`` and ``grad_scale``

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner, self.state = inner, inner.state
        self._stateless: set[nn.Parameter] = set()  # which have been updated, and have no state
        inner.param_groups = self.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        self._unscale(getattr(self, "grad_scale", None))
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is None:
            self.inner.step()
        elif not self._keeps_all_on_device():
            if not found_inf.item():
                self.inner.step()
                self._stateless = {parameter for parameter in self._updated() if not self.state.get(parameter)}
        else:
            self._step_unless(found_inf.bool().reshape(()))
        return result

    def _unscale(self, scale: Tensor | None) -> None:
        if scale is not None:
            for parameter in self._updated():
                assert parameter.grad is not None
                parameter.grad.div_(scale)

    def _updated(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from (parameter for parameter in group["params"] if parameter.grad is not None)

    def _keeps_all_on_device(self) -> bool:
        return all(
            (parameter in self._stateless or self.state.get(parameter))
            and all(_is_on(parameter.device, value) for value in self.state.get(parameter, {}).values())
            for parameter in self._updated()
        )

    def _step_unless(self, is_left_out: Tensor) -> None:
        groups = self.inner.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.inner.param_groups = [{**group, "params": [parameter]}]
                        self._update_unless(is_left_out, parameter)
        finally:
            self.inner.param_groups = groups

    def _update_unless(self, is_left_out: Tensor, parameter: nn.Parameter) -> None:
        names = list(self.state.get(parameter, {}))
        before = [value.clone() for value in (parameter, *self.state.get(parameter, {}).values())]
        self.inner.step()
        after = [parameter, *(self.state[parameter][name] for name in names)]
        for old, new in zip(before, after, strict=True):
            torch.where(is_left_out, old, new, out=new)


def _is_on(device: torch.device, value: Any) -> bool:
    return isinstance(value, Tensor) and value.device == device
