"""Which parameters train, by a rule of a user's own."""

from dataclasses import dataclass
from typing import ClassVar

from galpaca.model.tuning.method import TuningMethod


@dataclass(frozen=True)
class BiasesAndNorms(TuningMethod):
    """Biases and layer norms (BitFit, Ben Zaken et al. 2022, with the norms' weights)."""

    keeps_base: ClassVar[bool] = True
    flops_per_weight: ClassVar[int] = 4

    def trained(self, name: str) -> bool:
        return name.endswith(".bias") or "layer_norm" in name

    def describe(self) -> str:
        return "biases and layer norms"
