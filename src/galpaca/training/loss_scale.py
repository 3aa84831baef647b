"""A loss scaler without its passes over all gradients: whoever takes their norm knows whether they are finite.

torch's scaler reads and writes every gradient to take its scale out, and asks each rank for overflows of its own.
"""

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer


def inverse_scale(scaler: GradScaler) -> Tensor:
    """Scalar that takes the scale out of gradients: exactly, since it is a power of 2."""
    scale = scaler._scale
    assert scale is not None, "no loss was scaled"
    return scale.double().reciprocal().float()


def gradients_measured(scaler: GradScaler, optimizer: Optimizer, is_bad: Tensor) -> None:
    """Has the scaler leave the update out, and lower its scale, where gradients are not finite.

    Args:
        scaler: the run's.
        optimizer: of these gradients, which take the scale out on their own.
        is_bad: scalar bool on the device, the same on all ranks.
    """
    state = scaler._per_optimizer_states[id(optimizer)]
    state["found_inf_per_device"] = {is_bad.device: is_bad.float()}
    state["stage"] = OptState.UNSCALED
