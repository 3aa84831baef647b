"""Number formats as Lightning's plugins, with loss scaling for the device at hand."""

from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, FSDPPrecision, MixedPrecision, Precision

from galpaca.errors import InputError
from galpaca.training.specs import PrecisionSpec


class ShardedPrecision(FSDPPrecision):
    """FSDP's precision with a loss scaler for the device at hand; Lightning's always scales for CUDA."""

    scaler: Any  # Lightning's own is one of torch's for FSDP

    def __init__(self, name: Any, accelerator: str) -> None:
        super().__init__(name)
        if self.scaler is not None:
            self.scaler = torch.amp.GradScaler(device=accelerator)


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
