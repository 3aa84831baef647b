"""AdamW piece by piece, for moments of any dtype, on the device or in host memory; the host waits for nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from galpaca.training.optimizers.adamw_update import (
    AdamWUpdate,
    Piece,
    PieceUpdate,
    Rounding,
    compiled,
    stochastic,
)
from galpaca.training.optimizers.moment_stream import MomentStream, moments_like
from galpaca.training.optimizers.step_scalars import BiasCorrections, StepScalars, share_counts

# Numbers that are updated at a time: bounds temporary copies, and what of moments in host memory is on the device, to
# some hundred megabytes.
_PIECE_VALUES = 1 << 25
_MOMENTS = ("exp_avg", "exp_avg_sq")


class PiecewiseAdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019) in the arithmetic of the parameters, its moments stored in a dtype of choice.

    bfloat16 moments take 4 bytes a parameter instead of 8. They are rounded stochastically: to the nearest, a second
    moment would never decay, since a thousandth of it (1 - beta2) is less than half of bfloat16's last place. Rounding
    is unbiased instead, and random by torch's generator, which the training step seeds.

    It takes ``found_inf`` and ``grad_scale`` as torch's fused optimizers do, as scalars on the device: a loss scaler or
    ``UpdateGuard`` leaves an update out, and the host need not know. So the count of updates is on the device, too.
    ``grad_factor`` is another such scalar, that gradients are multiplied with: clipping costs no pass of its own.

    Moments in host memory are brought to the device piece by piece. Pieces, order and random numbers are the same as
    of moments on the device, and so are the bits.

    Args:
        params: parameters or groups of them.
        lr, betas, eps, weight_decay: as ``torch.optim.AdamW``'s.
        moments_dtype: bfloat16, or None for the parameters' own.
        moments_on_host: keep moments in host memory.
        one_kernel: compile the update.
        rounding: float32 to bfloat16.
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
        *,
        moments_on_host: bool = False,
        one_kernel: bool = False,
        rounding: Rounding = stochastic,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.moments_dtype, self.moments_on_host = moments_dtype, moments_on_host
        self.one_kernel, self.rounding = one_kernel, rounding
        self.grad_factor: Tensor | None = None
        self._corrections = BiasCorrections()
        self._most_updates: int | None = None  # that any parameter may have had

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        if self._most_updates is None:
            self._most_updates = share_counts(state for state in self.state.values() if state)
        self._most_updates += 1
        self._part_with_idle()
        for update in self._moments_brought(self._updates(self._step_scalars(self._most_updates))):
            update.make()
        self.grad_factor = None
        return result

    def _step_scalars(self, most_updates: int) -> StepScalars:
        scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        factor = self.grad_factor
        if scale is not None:
            factor = scale.reciprocal() if factor is None else factor / scale
        is_left_out = None if found_inf is None else found_inf.bool().reshape(())
        return StepScalars(self._corrections, most_updates, factor, is_left_out)

    def _part_with_idle(self) -> None:
        """Parameters that are not updated this time keep their count for themselves."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None and (state := self.state.get(parameter)):
                    state["step"] = state["step"].clone()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():  # torch casts what it loads to the parameter's dtype, and moves it
            for moment in _MOMENTS:
                state[moment] = self._moments_like(parameter).copy_(state[moment])

    def _updates(self, of_step: StepScalars) -> Iterator[PieceUpdate]:
        """Those of all pieces of all parameters."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            update = AdamWUpdate(beta1, beta2, group["eps"], self.rounding)
            rule = compiled(update) if self.one_kernel else update
            for parameter in filter(_is_updated, group["params"]):
                state = self._state_of(parameter, of_step)
                scalars = of_step.of(state["step"], group)
                flat = (parameter.view(-1), parameter.grad.reshape(-1))
                moments = (state[moment].view(-1) for moment in _MOMENTS)
                pieces = zip(*(values.split(_PIECE_VALUES) for values in (*flat, *moments)), strict=True)
                # Detached: a compiler would look at what they are views of, and make a program for each form of it.
                yield from (PieceUpdate(Piece(*(one.detach() for one in piece)), scalars, rule) for piece in pieces)

    def _moments_brought(self, updates: Iterator[PieceUpdate]) -> Iterator[PieceUpdate]:
        """The same with moments on the device, wherever they are kept."""
        updated = [one for group in self.param_groups for one in filter(_is_updated, group["params"])]
        if not self.moments_on_host or not updated:
            return updates
        largest = min(_PIECE_VALUES, max(one.numel() for one in updated))
        stream = MomentStream(largest, self.moments_dtype or updated[0].dtype, updated[0].device)
        return stream.around(updates)

    def _state_of(self, parameter: Tensor, of_step: StepScalars) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = of_step.new_count(parameter.device)
            state |= {moment: self._moments_like(parameter) for moment in _MOMENTS}
        return state

    def _moments_like(self, parameter: Tensor) -> Tensor:
        return moments_like(parameter, self.moments_dtype or parameter.dtype, on_host=self.moments_on_host)


def _is_updated(parameter: Tensor) -> bool:
    """Of a shard that is empty there is nothing to update."""
    return parameter.grad is not None and parameter.numel() > 0
