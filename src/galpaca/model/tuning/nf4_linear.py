"""Linear layers whose frozen matrix is in NF4."""

from typing import Any

import torch
from torch import Tensor, nn

from galpaca.model.tuning.low_rank import Adapted, LowRank, bare
from galpaca.model.tuning.nf4 import BLOCK_VALUES, Nf4Product


class Nf4Linear(nn.Linear):
    """``codes`` and ``scales`` stand where ``weight`` was: (in x out / 2,) uint8 and (in x out / 64,) float32."""

    codes: nn.Parameter
    scales: nn.Parameter

    @classmethod
    def like(cls, layer: nn.Linear) -> Any:
        """One of another layer's size, with its bias, its codes and scales on the meta device."""
        own = bare(cls, layer)
        own.bias = layer.bias
        del own.weight
        num_values = layer.in_features * layer.out_features
        with torch.device("meta"):
            codes = torch.empty(num_values // 2, dtype=torch.uint8)
            scales = torch.empty(num_values // BLOCK_VALUES, dtype=torch.float32)
        own.codes = nn.Parameter(codes, requires_grad=False)
        own.scales = nn.Parameter(scales, requires_grad=False)
        return own.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out), in autocast's dtype where that is on, as other products."""
        kind = input.device.type
        narrow = input.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else input
        product: Tensor = Nf4Product.apply(narrow, self.codes, self.scales)
        return product if self.bias is None else product + self.bias.to(product.dtype)


class Nf4LoraLinear(Adapted, Nf4Linear):
    """The same with an adapter."""

    @classmethod
    def beside(cls, layer: nn.Linear, low_rank: LowRank) -> "Nf4LoraLinear":
        """One of another layer's size, with its bias."""
        own: Nf4LoraLinear = cls.like(layer)
        own.add_adapter(low_rank)
        return own
