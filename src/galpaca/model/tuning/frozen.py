"""Models whose parameters are frozen: in which dtypes, and how wide the residual stream is that they begin."""

from typing import Any

import torch
from torch import Tensor, nn

from galpaca.model.families.family import Family


class WideEmbedding(nn.Embedding):
    """An embedding whose output is float32 or wider, though its weights are frozen in 16 bits: the residual stream that
    begins there is as wide as with trained weights.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(...) ids to (..., C)."""
        return super().forward(input).to(torch.promote_types(self.weight.dtype, torch.float32))


def frozen_dtype(family: Family, name: str, shape: tuple[int, ...], compute_dtype: torch.dtype) -> torch.dtype:
    """Dtype of a frozen parameter, so that no product needs a cast copy of it, which autograd would keep for backward.

    What is added to the residual stream or normalizes it stays in float32, and with it the stream.
    """
    if family.is_product(name, shape):
        return compute_dtype
    return torch.promote_types(compute_dtype, torch.float32)


def freeze(model: nn.Module, family: Family, compute_dtype: torch.dtype) -> None:
    """Makes all parameters, on the meta device, frozen ones of ``frozen_dtype``; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter not in made:
                dtype = frozen_dtype(family, names[parameter], tuple(parameter.shape), compute_dtype)
                made[parameter] = nn.Parameter(torch.empty_like(parameter, dtype=dtype), requires_grad=False)
            module._parameters[key] = made[parameter]
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Embedding:
                setattr(module, name, like(WideEmbedding, child))


def like(cls: type[nn.Module], module: nn.Module) -> Any:
    """A module of another class with the parameters and settings of ``module``."""
    own = cls.__new__(cls)
    own.__dict__.update(module.__dict__)  # the same parameters, tied ones too
    return own
