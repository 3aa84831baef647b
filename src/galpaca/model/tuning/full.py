"""Full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.model.tuning.method import TuningMethod

if TYPE_CHECKING:
    import torch

    from galpaca.model.tensors import TensorSource


@dataclass(frozen=True)
class FullTuning(TuningMethod):
    """Trains all parameters."""

    timeline: ClassVar[str | None] = "full"

    def trained(self, name: str) -> bool:
        return True

    def released(
        self, base: TensorSource | None, trained: TensorSource, compute_dtype: torch.dtype, *, original: bool = False
    ) -> TensorSource:
        return trained

    def describe(self) -> str:
        return "all parameters"

    def memory_advice(self) -> list[str]:
        cost = "2 bytes per parameter instead of 16: trains adapters; another recipe, so needs a new run.name"
        return [f"tuning=lora optim.lr=2e-4, with strategy=single, ddp or fsdp2 ({cost})"]

    def recipe(self) -> Mapping[str, Any]:
        return {}
