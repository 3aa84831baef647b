"""AdamW in plain tensor operations, for moments of any dtype; the host waits for nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Numbers that are updated at a time: bounds the temporary copies to some hundred megabytes.
_CHUNK = 1 << 25
# Counts of updates that a table of bias corrections grows by.
_MORE_COUNTS = 1024


class UnfusedAdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019) in the arithmetic of the parameters, its moments stored in a dtype of choice.

    bfloat16 moments take 4 bytes a parameter instead of 8. They are rounded stochastically: to the nearest, a second
    moment would never decay, since a thousandth of it (1 - beta2) is less than half of bfloat16's last place. Rounding
    is unbiased instead, and random by torch's generator, which the training step seeds.

    It takes ``found_inf`` and ``grad_scale`` as torch's fused optimizers do, as scalars on the device: a loss scaler or
    ``UpdateGuard`` leaves an update out, and the host need not know. So the count of updates is on the device, too.

    Args:
        params: parameters or groups of them.
        lr, betas, eps, weight_decay: as ``torch.optim.AdamW``'s.
        moments_dtype: bfloat16, or None for the parameters' own.
    """

    _step_supports_amp_scaling = True  # torch's mark of optimizers that take ``found_inf`` and ``grad_scale``

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        moments_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.moments_dtype = moments_dtype
        self._tables: dict[tuple[Any, ...], Tensor] = {}
        self._most_updates: int | None = None  # that any parameter may have had

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        if self._most_updates is None:
            self._most_updates = max((int(state["step"]) for state in self.state.values() if state), default=0)
        self._most_updates += 1
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        is_left_out = None if found_inf is None else found_inf.bool().reshape(())
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, is_left_out)
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():  # torch casts what it loads to the parameter's dtype
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = state[moment].to(self.moments_dtype or parameter.dtype)

    def _update(self, parameter: Tensor, group: dict[str, Any], is_left_out: Tensor | None) -> None:
        state = self._state_of(parameter)
        count = state["step"] + 1
        table = self._corrections(parameter.device, group["betas"])
        correction, root_correction = table.index_select(0, count.long().view(1)).view(2).unbind()
        _put(state["step"], count, is_left_out)
        # Written as -lr / correction, torch would multiply with the reciprocal, which rounds twice.
        neg_step_size = torch.full_like(correction, -group["lr"]).div_(correction)
        beta1, beta2 = group["betas"]
        # Operations in the order of torch's own loop, whose bits these are.
        for weights, grads, first, second in self._chunks(parameter, state):
            mean = first.to(weights.dtype, copy=True).lerp_(grads, 1 - beta1)
            square = second.to(weights.dtype, copy=True).mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
            change = mean.mul(neg_step_size).div_(square.sqrt().div_(root_correction).add_(group["eps"]))
            _put(weights, change.add_(weights.mul(1 - group["lr"] * group["weight_decay"])), is_left_out)
            _put(first, _rounded(mean, first.dtype), is_left_out)
            _put(second, _rounded(square, second.dtype), is_left_out)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.zeros_like(parameter, dtype=self.moments_dtype)
        return state

    def _chunks(self, parameter: Tensor, state: dict[str, Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Flat pieces of the parameter, its gradient and its two moments."""
        assert parameter.grad is not None
        scale: Tensor | None = getattr(self, "grad_scale", None)
        gradient = parameter.grad if scale is None else parameter.grad / scale
        tensors = (parameter.view(-1), gradient.reshape(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1))
        return zip(*(tensor.split(_CHUNK) for tensor in tensors), strict=True)

    def _corrections(self, device: torch.device, betas: tuple[float, float]) -> Tensor:
        """(counts, 2) float64: the bias corrections after each number of updates, the second as its root.

        A table, because the number is on the device, and a power computed there may differ from torch's own loop, which
        takes it on the host, in the last place.
        """
        assert self._most_updates is not None
        table = self._tables.get((device, betas))
        if table is None or len(table) <= self._most_updates:
            counts = range(self._most_updates + _MORE_COUNTS)
            rows = [(1 - betas[0] ** count, (1 - betas[1] ** count) ** 0.5) for count in counts]
            table = self._tables[device, betas] = torch.tensor(rows, dtype=torch.float64).to(device)
        return table


def _put(target: Tensor, values: Tensor, is_left_out: Tensor | None) -> None:
    """Replaces values in their place, unless the scalar on the device says that they stay."""
    if is_left_out is None:
        target.copy_(values)
    else:
        torch.where(is_left_out, target, values, out=target)


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    return round_to_bfloat16(values.float()) if dtype == torch.bfloat16 != values.dtype else values


def round_to_bfloat16(values: Tensor) -> Tensor:
    """float32 to bfloat16, up or down with the probabilities that keep the mean.

    bfloat16 is float32 without its last 16 bits: a random number of 16 bits is added to them, and those are dropped.
    What is not finite stays so.
    """
    noise = torch.randint_like(values, 1 << 16, dtype=torch.int32)
    rounded = (values.view(torch.int32) + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).bfloat16()
