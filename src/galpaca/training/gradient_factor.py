"""One factor for all gradients, that of clipping and of the loss scale, applied where they are read anyway."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

# Keeps a norm of 0 from dividing, as ``torch.nn.utils.clip_grad_norm_`` does.
_EPSILON = 1e-6


def gradient_factor(norm: Tensor, max_norm: float | None, unscale: Tensor | None) -> Tensor | None:
    """Scalar that gradients are to be multiplied with; None where there is nothing to multiply with.

    Args:
        norm: global norm of the gradients without the loss scale.
        max_norm: most that the norm may be; None for any.
        unscale: what takes the loss scale out of the gradients.
    """
    if max_norm is None:
        return unscale
    factor = (max_norm / (norm + _EPSILON)).clamp(max=1.0)
    return factor if unscale is None else factor * unscale


def scale_gradients(optimizer: Optimizer, factor: Tensor | None) -> None:
    """Has gradients multiplied before the next update: within it, by an optimizer that takes ``grad_factor``."""
    if hasattr(optimizer, "grad_factor"):
        optimizer.grad_factor = factor
    elif factor is not None:
        with torch.no_grad():
            for gradient in _gradients(optimizer):
                gradient.mul_(factor)


def _gradients(optimizer: Optimizer) -> Iterable[Tensor]:
    for group in optimizer.param_groups:
        yield from (parameter.grad for parameter in group["params"] if parameter.grad is not None)
