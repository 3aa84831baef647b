"""Leaves an update out where loss or gradients are not finite."""

from torch import Tensor
from torch.optim import Optimizer


class UpdateGuard:
    """Leaves an update out where loss or gradients are not finite, without the host looking at them.

    Optimizers take a flag on the device that torch made for loss scalers.

    Args:
        holds: leave out all updates after the first such step too, until ``release``: the weights stay those at which
            it happened.
    """

    def __init__(self, *, holds: bool) -> None:
        self.holds = holds
        self._held: Tensor | None = None

    def before_update(self, optimizer: Optimizer, is_bad: Tensor) -> None:
        """Makes the next update a no-op if the step is not finite.

        Args:
            is_bad: scalar bool on the device, the same on all ranks.
        """
        if self.holds:
            is_bad = is_bad if self._held is None else is_bad | self._held
            self._held = is_bad
        optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]

    def after_update(self, optimizer: Optimizer) -> None:
        if hasattr(optimizer, "found_inf"):
            del optimizer.found_inf

    def release(self) -> None:
        self._held = None
