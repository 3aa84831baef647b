"""The configuration as typed, frozen records."""

from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from galpaca.app.config.specs import HangSpec, ReleaseSpec, RunSpec
from galpaca.data.spec import DataSpec
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.opt import ModelSpec
from galpaca.training.specs import (
    BatchSpec,
    CheckpointSpec,
    GuardSpec,
    OptimizerSpec,
    PrecisionSpec,
    SamplesSpec,
    TrainerSpec,
)


@dataclass(frozen=True)
class Config:
    """A whole run. ``strategy``, ``logger`` and each of ``callbacks`` name a ``_target_`` and its arguments.

    Attributes:
        seed: seed of the order of examples, of dropout, and of random initial weights.
    """

    run: RunSpec
    data: DataSpec
    model: ModelSpec
    strategy: dict[str, Any]
    logger: dict[str, Any]
    callbacks: dict[str, Any] = field(default_factory=dict)
    batch: BatchSpec = field(default_factory=BatchSpec)
    optim: OptimizerSpec = field(default_factory=OptimizerSpec)
    precision: PrecisionSpec = field(default_factory=PrecisionSpec)
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    guard: GuardSpec = field(default_factory=GuardSpec)
    hang: HangSpec = field(default_factory=HangSpec)
    samples: SamplesSpec = field(default_factory=SamplesSpec)
    release: ReleaseSpec = field(default_factory=ReleaseSpec)
    seed: int = 42

    @property
    def fast_attention(self) -> bool:
        """Whether all examples of a micro-batch go through one attention kernel."""
        from galpaca.model.attention import is_fast

        return is_fast(self.trainer.accelerator, self.precision.name, self.model.attention_dropout)

    def values(self) -> dict[str, Any]:
        """Every key and its value, as in ``config.yaml``."""
        return {**asdict(self), "optim": self.optim.values()}

    def recipe_values(self) -> dict[str, Any]:
        """The same, but of the optimizer only what it says decides the trained weights."""
        return {**self.values(), "optim": self.optim.recipe()}


def config_folder() -> Path:
    """``conf/`` of the checkout, or the copy inside an installed package."""
    checkout = Path(__file__).parents[4] / "conf"
    return checkout if checkout.is_dir() else Path(str(resources.files("galpaca") / "conf"))
