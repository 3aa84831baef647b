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
        moments_on: ``device``, or ``host``: in host memory, from where they are brought to the device piece by piece.
            The same bits, 4 or 8 bytes per parameter less on the device.
        fused: use one kernel for the update of a tensor, which clips as well, instead of a loop over plain operations.
    """

    not_in_recipe: ClassVar[frozenset[str]] = frozenset({"fused", "moments_on"})

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    moments_dtype: str = "float32"
    moments_on: str = "device"
    fused: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            for name in ("beta1", "beta2"):
                problems.check_number(f"optim.{name}", getattr(self, name), "in [0, 1)", f"e.g. optim.{name}=0.9")
            problems.check_number("optim.eps", self.eps, "> 0", "e.g. optim.eps=1e-8")
            problems.check_number("optim.weight_decay", self.weight_decay, ">= 0", "0 is off")
            problems.check_choice("optim.moments_dtype", self.moments_dtype, ("float32", "bfloat16"))
            problems.check_choice("optim.moments_on", self.moments_on, ("device", "host"))

    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        import torch

        from galpaca.training.optimizers.piecewise_adamw import PiecewiseAdamW

        betas = (self.beta1, self.beta2)
        options: dict[str, Any] = {"betas": betas, "eps": self.eps, "weight_decay": self.weight_decay}
        on_gpu = any(parameter.is_cuda for group in groups for parameter in group["params"])
        if self.fused and self._moments is None and not on_gpu:
            return torch.optim.AdamW(groups, fused=True, **options)  # of a CPU, whose moments are on the host anyway
        moments = None if self._moments is None else getattr(torch, self._moments)
        where: dict[str, Any] = {"moments_on_host": self.moments_on == "host", "one_kernel": self.fused and on_gpu}
        return PiecewiseAdamW(groups, moments_dtype=moments, **where, **options)

    @property
    def state(self) -> Mapping[str, str | None]:
        return {"exp_avg": self._moments, "exp_avg_sq": self._moments}

    def host_state_bytes(self, weight_dtype: str) -> int:
        return self.state_bytes(weight_dtype) if self.moments_on == "host" else 0

    @property
    def _moments(self) -> str | None:
        # "float32" has always been the parameters' own dtype, which is float64 in 64-true.
        return None if self.moments_dtype == "float32" else self.moments_dtype

    def describe(self) -> str:
        moments = "" if self._moments is None else f", moments in {self._moments}"
        return f"AdamW, betas {self.beta1} and {self.beta2}, weight decay {self.weight_decay}{moments}"

    def memory_advice(self) -> list[str]:
        if self._moments is not None or self.moments_on == "host":
            return []
        cost = "4 bytes per parameter less; changes the recipe, so needs a new run.name"
        return [f"optim.moments_dtype=bfloat16 ({cost})"]

    def slow_memory_advice(self) -> list[str]:
        if self.moments_on == "host":
            return []
        num_bytes = 8 if self._moments is None else 4
        cost = f"{num_bytes} bytes per parameter less; the same recipe, and each step waits for their transfer"
        return [f"optim.moments_on=host ({cost})"]
