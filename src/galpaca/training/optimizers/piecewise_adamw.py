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
    Scalars,
    compiled,
    stochastic,
)
from galpaca.training.optimizers.moment_stream import MomentStream, moments_like

# Numbers that are updated at a time: bounds temporary copies, and what of moments in host memory is on the device, to
# some hundred megabytes.
_PIECE_VALUES = 1 << 25
# Counts of updates that a table of bias corrections grows by.
_MORE_COUNTS = 1024
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
        self._tables: dict[tuple[Any, ...], Tensor] = {}
        self._of_this_step: dict[Any, Any] = {}  # counts and scalars, which parameters share
        self._most_updates: int | None = None  # that any parameter may have had

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        if self._most_updates is None:
            self._most_updates = self._share_counts()
        self._most_updates += 1
        self._part_with_idle()
        for update in self._moments_brought(self._updates()):
            update.make()
        self._of_this_step.clear()
        self.grad_factor = None
        return result

    def _share_counts(self) -> int:
        """Has parameters with as many updates share the count, so that scalars are computed once for all of them.

        Returns:
            The most updates of any.
        """
        shared: dict[tuple[torch.device, int], Tensor] = {}
        for state in self.state.values():
            if state:
                key = (state["step"].device, int(state["step"]))
                state["step"] = shared.setdefault(key, state["step"])
        return max((count for _, count in shared), default=0)

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

    def _updates(self) -> Iterator[PieceUpdate]:
        """Those of all pieces of all parameters."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            update = AdamWUpdate(beta1, beta2, group["eps"], self.rounding)
            rule = compiled(update) if self.one_kernel else update
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.numel():  # a shard may be empty
                    state = self._state_of(parameter)
                    scalars = self._scalars(parameter.device, state["step"], group)
                    flat = (parameter.view(-1), parameter.grad.reshape(-1))
                    moments = (state[moment].view(-1) for moment in _MOMENTS)
                    pieces = zip(*(values.split(_PIECE_VALUES) for values in (*flat, *moments)), strict=True)
                    # Detached: a compiler would look at what they are views of, and make a program for each form of it.
                    yield from (PieceUpdate(Piece(*(one.detach() for one in piece)), scalars, rule) for piece in pieces)

    def _moments_brought(self, updates: Iterator[PieceUpdate]) -> Iterator[PieceUpdate]:
        """The same with moments on the device, wherever they are kept."""
        updated = [
            one for group in self.param_groups for one in group["params"] if one.grad is not None and one.numel()
        ]
        if not self.moments_on_host or not updated:
            return updates
        largest = min(_PIECE_VALUES, max(one.numel() for one in updated))
        stream = MomentStream(largest, self.moments_dtype or updated[0].dtype, updated[0].device)
        return stream.around(updates)

    def _scalars(self, device: torch.device, step: Tensor, group: dict[str, Any]) -> Scalars:
        """Those of a parameter's update, which is counted."""
        key = (id(step), group["lr"], group["weight_decay"], group["betas"])
        if key not in self._of_this_step:
            self._of_this_step[key] = self._computed_scalars(device, step, group)
        found: Scalars = self._of_this_step[key]
        return found

    def _computed_scalars(self, device: torch.device, step: Tensor, group: dict[str, Any]) -> Scalars:
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        is_left_out = None if found_inf is None else found_inf.bool().reshape(())
        count = self._counted(step, is_left_out)
        table = self._corrections(device, group["betas"])
        correction, root_correction = table.index_select(0, count.long().view(1)).view(2).unbind()
        # Written as -lr / correction, torch would multiply with the reciprocal, which rounds twice.
        neg_step_size = torch.full_like(correction, -group["lr"]).div_(correction)
        decay = torch.full_like(correction, 1 - group["lr"] * group["weight_decay"])
        return Scalars(neg_step_size, root_correction, decay, self._factor(), is_left_out)

    def _counted(self, step: Tensor, is_left_out: Tensor | None) -> Tensor:
        """The count with this update, made once for all parameters that share it."""
        if id(step) not in self._of_this_step:
            count = self._of_this_step[id(step)] = step + 1
            step.copy_(count if is_left_out is None else torch.where(is_left_out, step, count))
        found: Tensor = self._of_this_step[id(step)]
        return found

    def _factor(self) -> Tensor | None:
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if scale is None:
            return self.grad_factor
        return scale.reciprocal() if self.grad_factor is None else self.grad_factor / scale

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            first = self._of_this_step.setdefault(parameter.device, torch.zeros((), device=parameter.device))
            state["step"] = first
            state |= {moment: self._moments_like(parameter) for moment in _MOMENTS}
        return state

    def _moments_like(self, parameter: Tensor) -> Tensor:
        return moments_like(parameter, self.moments_dtype or parameter.dtype, on_host=self.moments_on_host)

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
