"""Scalars of an update, on the device: made once for all parameters that have had as many updates."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from galpaca.training.optimizers.adamw_update import Scalars

# Counts of updates that a table of bias corrections grows by.
_MORE_COUNTS = 1024


def share_counts(counts: Iterable[dict[str, Tensor]]) -> int:
    """Has states with as many updates share their ``step``.

    Reads them from the device: for states that were restored, before their first update.

    Returns:
        The most updates of any.
    """
    shared: dict[tuple[torch.device, int], Tensor] = {}
    for state in counts:
        key = (state["step"].device, int(state["step"]))
        state["step"] = shared.setdefault(key, state["step"])
    return max((count for _, count in shared), default=0)


class BiasCorrections:
    """Adam's bias corrections after each number of updates.

    A table, because the number is on the device, and a power computed there may differ from torch's own loop, which
    takes it on the host, in the last place.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[torch.device, tuple[float, float]], Tensor] = {}

    def of(self, count: Tensor, betas: tuple[float, float], most: int) -> tuple[Tensor, Tensor]:
        """Scalars float64: the first correction, and the root of the second.

        Args:
            count: of updates, a scalar on the device.
            most: that the count may be.
        """
        table = self._tables.get((count.device, betas))
        if table is None or len(table) <= most:
            rows = [(1 - betas[0] ** n, (1 - betas[1] ** n) ** 0.5) for n in range(most + _MORE_COUNTS)]
            table = self._tables[count.device, betas] = torch.tensor(rows, dtype=torch.float64).to(count.device)
        first, second_root = table.index_select(0, count.long().view(1)).view(2).unbind()
        return first, second_root


class StepScalars:
    """Those of one step: each costs the host as much as a kernel's launch, and a model has hundreds of parameters.

    Args:
        corrections: kept from step to step.
        most_updates: that any parameter has had after this step.
        factor: what gradients are multiplied with; None for nothing.
        is_left_out: scalar bool on the device: no update is to be made; None where one is made in any case.
    """

    def __init__(
        self, corrections: BiasCorrections, most_updates: int, factor: Tensor | None, is_left_out: Tensor | None
    ) -> None:
        self._corrections, self._most_updates = corrections, most_updates
        self._factor, self._is_left_out = factor, is_left_out
        self._counted: dict[int, Tensor] = {}
        self._made: dict[tuple[Any, ...], Scalars] = {}
        self._zeros: dict[torch.device, Tensor] = {}

    def new_count(self, device: torch.device) -> Tensor:
        """The count of parameters whose first update this is; one for all of them."""
        return self._zeros.setdefault(device, torch.zeros((), device=device))

    def of(self, step: Tensor, group: dict[str, Any]) -> Scalars:
        """Those of a parameter's update, which is counted.

        Args:
            step: the parameter's count of updates.
            group: its group in the optimizer.
        """
        key = (id(step), group["lr"], group["weight_decay"], group["betas"])
        if key not in self._made:
            correction, root_correction = self._corrections.of(self._count(step), group["betas"], self._most_updates)
            # Written as -lr / correction, torch would multiply with the reciprocal, which rounds twice.
            neg_step_size = torch.full_like(correction, -group["lr"]).div_(correction)
            decay = torch.full_like(correction, 1 - group["lr"] * group["weight_decay"])
            self._made[key] = Scalars(neg_step_size, root_correction, decay, self._factor, self._is_left_out)
        return self._made[key]

    def _count(self, step: Tensor) -> Tensor:
        """The count with this update, made once."""
        if id(step) not in self._counted:
            count = self._counted[id(step)] = step + 1
            step.copy_(count if self._is_left_out is None else torch.where(self._is_left_out, step, count))
        return self._counted[id(step)]
