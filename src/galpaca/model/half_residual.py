"""The arithmetic of FSDP's mixed precision without FSDP: embeddings and layer norms from 16-bit weights.

Autocast casts the weights of matrix products only. Embeddings stay float32, and with them the residual stream that
they begin. FSDP casts all weights as it gathers them, so its stream is of 16 bits.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm
from transformers import OPTForCausalLM
from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding


class HalfEmbedding(nn.Embedding):
    """An embedding from weights in autocast's dtype, where that is on."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) ids to (..., C)."""
        kind = self.weight.device.type
        weight = self.weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else self.weight
        return embedding(input, weight, self.padding_idx)


class HalfPositions(OPTLearnedPositionalEmbedding, HalfEmbedding):  # type: ignore[misc]
    """Embeddings of positions likewise."""


class HalfNorm(nn.LayerNorm):
    """A layer norm from weights in its input's dtype; autocast may still compute it wider."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        weight, bias = (one if one is None else one.to(input.dtype) for one in (self.weight, self.bias))
        return layer_norm(input, self.normalized_shape, weight, bias, self.eps)


_HALVED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Embedding: HalfEmbedding,
    OPTLearnedPositionalEmbedding: HalfPositions,
    nn.LayerNorm: HalfNorm,
}


def halve_residual(model: OPTForCausalLM) -> None:
    """Makes the residual stream of a model one of 16 bits wherever autocast is on; parameters and names stay."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in _HALVED:
                setattr(module, name, _like(_HALVED[type(child)], child))


def _like(cls: type[nn.Module], module: nn.Module) -> Any:
    own = cls.__new__(cls)
    own.__dict__.update(module.__dict__)  # the same parameters and settings, tied ones too
    return own
