"""AdamW's settings; cheap to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.errors import Problems
from galpaca.training.optimizers.factory import OptimizerFactory

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class AdamW(OptimizerFactory):
    """AdamW (Loshchilov and Hutter 2019); the defaults are Stanford Alpaca's.

    Attributes:
        beta1: decay rate of Adam's first moment.
        beta2: decay rate of Adam's second moment.
        eps: added to the root of the second moment, so that no update divides by 0.
        weight_decay: weight decay of matrices; biases and layer norms have none.
        moments_dtype: dtype of Adam's two moments: ``float32``, or ``bfloat16`` with stochastic rounding, which saves
            4 bytes per parameter.
        fused: use one kernel for the whole update, if the moments are float32; otherwise loop over tensors.
    """

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"fused"})

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    moments_dtype: str = "float32"
    fused: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            for name in ("beta1", "beta2"):
                problems.check_number(f"optim.{name}", getattr(self, name), "in [0, 1)", f"e.g. optim.{name}=0.9")
            problems.check_number("optim.eps", self.eps, "> 0", "e.g. optim.eps=1e-8")
            problems.check_number("optim.weight_decay", self.weight_decay, ">= 0", "0 is off")
            problems.check_choice("optim.moments_dtype", self.moments_dtype, ("float32", "bfloat16"))

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        import torch

        from galpaca.training.optimizers.unfused_adamw import UnfusedAdamW

        betas = (self.beta1, self.beta2)
        options: dict[str, Any] = {"betas": betas, "eps": self.eps, "weight_decay": self.weight_decay}
        if self._moments is None and self.fused:
            return torch.optim.AdamW(groups, fused=True, **options)
        moments = None if self._moments is None else getattr(torch, self._moments)
        return UnfusedAdamW(groups, moments_dtype=moments, **options)

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"exp_avg": self._moments, "exp_avg_sq": self._moments}

    @property
    def _moments(self) -> str | None:
        # "float32" has always been the parameters' own dtype, which is float64 in 64-true.
        return None if self.moments_dtype == "float32" else self.moments_dtype

    def describe(self) -> str:
        moments = "" if self._moments is None else f", moments in {self._moments}"
        return f"AdamW, betas {self.beta1} and {self.beta2}, weight decay {self.weight_decay}{moments}"

    def memory_advice(self) -> list[str]:
        if self._moments is not None:
            return []
        cost = "4 bytes per parameter less; changes the recipe, so needs a new run.name"
        return [f"optim.moments_dtype=bfloat16 ({cost})"]
