"""Number formats as Lightning's plugins, with loss scaling for the device at hand."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, FSDPPrecision, MixedPrecision, Precision

from galpaca.errors import InputError
from galpaca.training.specs import PrecisionSpec

HALF_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class ShardedPrecision(FSDPPrecision):
    """FSDP's precision for the device at hand; Lightning's always scales and casts for CUDA.

    Weights are cast to 16 bits as they are gathered, so the residual stream is of 16 bits. Autocast still decides what
    is computed wider (on CUDA, layer norms); on a CPU it changes no bit, but is the same path.
    """

    scaler: Any  # Lightning's own is one of torch's for FSDP

    def __init__(self, name: Any, accelerator: str) -> None:
        super().__init__(name)
        self._device_type = accelerator
        if self.scaler is not None:
            self.scaler = torch.amp.GradScaler(device=accelerator)

    def forward_context(self) -> AbstractContextManager[Any]:
        dtype = HALF_DTYPES.get(self.precision)
        return super().forward_context() if dtype is None else torch.autocast(self._device_type, dtype)


def plain_precision(strategy: str, accelerator: str, precision: PrecisionSpec) -> Precision:
    """For a strategy that keeps whole parameters.

    Raises:
        InputError: no such precision.
    """
    match precision.name:
        case "32-true":
            return Precision()
        case "64-true":
            return DoublePrecision()
        case "bf16-mixed" | "16-mixed":
            # Given by name, Lightning would silently turn 16-mixed into bf16-mixed on a CPU.
            return MixedPrecision(precision.name, device_type(accelerator))
    raise refused(strategy, precision.name, ("32-true", "bf16-mixed", "16-mixed", "64-true"))


def device_type(accelerator: str) -> str:
    return "cpu" if accelerator == "cpu" else "cuda"


def refused(strategy: str, name: str, names: tuple[str, ...]) -> InputError:
    return InputError(
        f"strategy {strategy} does not support precision {name!r}",
        where="precision",
        fix=f"precision={' or '.join(names)}, or another strategy",
    )
