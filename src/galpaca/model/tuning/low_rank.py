"""Low-rank adapters (LoRA, Hu et al. 2021): beside a frozen linear layer, a product of two narrow matrices trains."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

A, B = "lora_A.weight", "lora_B.weight"


@dataclass(frozen=True)
class LowRank:
    """Size of adapters.

    Attributes:
        rank: width between the two matrices.
        scaling: factor of their product.
        dropout: probability that an input of the adapter is left out in training.
    """

    rank: int
    scaling: float
    dropout: float


class Adapted(nn.Linear):
    """Adds the adapter to what another class of linear layers computes, which stands behind it among the bases.

    ``lora_A`` is (rank, in) and ``lora_B`` (out, rank), in the dtype of trained weights; they compute in the input's.
    """

    lora_A: nn.Linear  # noqa: N815 - PEFT's names, which its files have
    lora_B: nn.Linear  # noqa: N815

    def add_adapter(self, low_rank: LowRank) -> None:
        """Puts the two matrices on the meta device."""
        with torch.device("meta"):
            self.lora_A = nn.Linear(self.in_features, low_rank.rank, bias=False)
            self.lora_B = nn.Linear(low_rank.rank, self.out_features, bias=False)
        self.low_rank = low_rank

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        dropped = dropout(input, self.low_rank.dropout, self.training) if self.low_rank.dropout else input
        # Cast here, not by the layers: under autocast the input stays as narrow as it is for backward.
        narrow = linear(dropped, self.lora_A.weight.to(input.dtype))
        wide: Tensor = linear(narrow, self.lora_B.weight.to(narrow.dtype))
        return super().forward(input) + wide * self.low_rank.scaling


class LoraLinear(Adapted, nn.Linear):
    """A linear layer with an adapter."""

    @classmethod
    def beside(cls, layer: nn.Linear, low_rank: LowRank) -> "LoraLinear":
        """One that holds the parameters of another layer."""
        own = bare(cls, layer)
        own.weight, own.bias = layer.weight, layer.bias
        own.add_adapter(low_rank)
        return own.train(layer.training)


def bare(cls: Any, layer: nn.Linear) -> Any:
    """A layer of a class, of another's size, on the meta device."""
    with torch.device("meta"):
        return cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
