"""The group ``strategy`` of a configuration; cheap to import."""

from dataclasses import dataclass, field

from galpaca.training.specs import TARGET
from galpaca.training.strategies.factory import StrategyFactory
from galpaca.training.strategies.shipped import Single


@dataclass(frozen=True)
class StrategySpec:
    """How processes share the model: what each computes and holds (docs/strategies.md).

    Attributes:
        factory: what ``strategy._target_`` names, with the further keys of the group.
    """

    factory: StrategyFactory = field(default_factory=Single, metadata=TARGET)
