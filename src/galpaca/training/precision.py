"""Number formats as Lightning's plugins, with loss scaling for the device at hand."""

from typing import Any

from lightning.pytorch.plugins.precision import DoublePrecision, FSDPPrecision, MixedPrecision, Precision
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.optim import Optimizer

from galpaca.errors import InputError
from galpaca.training.specs import PrecisionSpec


class _ShardedScaler(ShardedGradScaler):
    """Reports an overflow by a number; torch's vector of one number is refused by fused optimizers' updates."""

    def unscale_(self, optimizer: Optimizer) -> None:
        super().unscale_(optimizer)
        flags = self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        for device, flag in flags.items():
            flags[device] = flag.reshape(())


class ShardedPrecision(FSDPPrecision):
    """FSDP's precision with a loss scaler for the device at hand; Lightning's always scales for CUDA."""

    def __init__(self, name: Any, accelerator: str) -> None:
        super().__init__(name)
        if self.scaler is not None:
            self.scaler = _ShardedScaler(device=accelerator)


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
