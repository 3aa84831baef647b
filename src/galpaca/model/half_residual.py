"""The arithmetic of FSDP's mixed precision without FSDP: embeddings and layer norms from 16-bit weights.

Autocast casts the weights of matrix products only. Embeddings stay float32, and with them the residual stream that
they begin. FSDP casts all weights as it gathers them, so its stream is of 16 bits.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm

from galpaca.model.families.family import Family
from galpaca.model.tuning.frozen import WideEmbedding, like


class HalfEmbedding(nn.Embedding):
    """An embedding from weights in autocast's dtype, where that is on."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) ids to (..., C)."""
        kind = self.weight.device.type
        weight = self.weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else self.weight
        return embedding(input, weight, self.padding_idx)


class HalfNorm(nn.LayerNorm):
    """A layer norm from weights in its input's dtype; autocast may still compute it wider."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        weight, bias = (one if one is None else one.to(input.dtype) for one in (self.weight, self.bias))
        return layer_norm(input, self.normalized_shape, weight, bias, self.eps)


# Of every family, besides its own.
_HALVED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Embedding: HalfEmbedding,
    WideEmbedding: HalfEmbedding,
    nn.LayerNorm: HalfNorm,
}


def halve_residual(model: nn.Module, family: Family) -> None:
    """Makes the residual stream of a model one of 16 bits wherever autocast is on; parameters and names stay."""
    halved = {**_HALVED, **family.halved()}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in halved:
                setattr(module, name, like(halved[type(child)], child))
