"""AdamW whose two moments are kept in bfloat16: 4 bytes a parameter instead of 8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Numbers that are updated at a time: bounds the float32 copies to some hundred megabytes.
_CHUNK = 1 << 25


class CompactAdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019) in float32 arithmetic, its moments stored in bfloat16.

    The moments are rounded stochastically: to the nearest, a second moment would never decay, since a thousandth of
    it (1 - beta2) is less than half of bfloat16's last place. Rounding is unbiased instead, and random by torch's
    generator, which the training step seeds.

    Args:
        params: parameters or groups of them, float32.
        lr, betas, eps, weight_decay: as ``torch.optim.AdamW``'s.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():  # torch casts what it loads to the parameter's dtype
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = state[moment].bfloat16()

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        taken = float(state["step"])
        step_size = group["lr"] / (1 - beta1**taken)
        root_correction = math.sqrt(1 - beta2**taken)
        tensors = (parameter.view(-1), gradient.reshape(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1))
        for weights, grads, first, second in zip(*(t.split(_CHUNK) for t in tensors), strict=True):
            mean = first.float().lerp_(grads, 1 - beta1)
            square = second.float().mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
            weights.mul_(1 - group["lr"] * group["weight_decay"])
            weights.addcdiv_(mean, square.sqrt().div_(root_correction).add_(group["eps"]), value=-step_size)
            first.copy_(round_to_bfloat16(mean))
            second.copy_(round_to_bfloat16(square))


def round_to_bfloat16(values: Tensor) -> Tensor:
    """float32 to bfloat16, up or down with the probabilities that keep the mean.

    bfloat16 is float32 without its last 16 bits: a random number of 16 bits is added to them, and they are cut off.
    What is not finite stays so.
    """
    noise = torch.randint_like(values, 1 << 16, dtype=torch.int32)
    rounded = (values.view(torch.int32) + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).bfloat16()
