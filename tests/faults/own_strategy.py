"""A strategy of a user's own, under a name that ``galpaca`` does not know."""

from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import Strategy

from galpaca.training.specs import PrecisionSpec
from galpaca.training.strategies import single


def alone(accelerator: str, precision: PrecisionSpec) -> tuple[Strategy, Precision]:
    return single(accelerator, precision)
