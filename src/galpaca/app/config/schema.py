"""The configuration as typed, frozen records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from galpaca.app.config.specs import BatchSpec, CheckpointSpec, HangSpec, ReleaseSpec, RunSpec, SamplesSpec, TrainerSpec
from galpaca.data.spec import DataSpec
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.opt import ModelSpec
from galpaca.training.specs import GuardSpec, OptimizerSpec, PrecisionSpec


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

    def recipe(self) -> dict[str, Any]:
        """The flat set of values that decide the trained weights; it must not change when a run is resumed.

        Devices, strategy, packing, compilation, logging, checkpoints, release and file locations may change: they
        move the weights by rounding at most.
        """
        free = {
            "model": {"tokenizer", "license"},
            "data": {"path", "cache_dir", "license", "terms"},
        }
        recipe: dict[str, Any] = {"seed": self.seed, "batch.examples": self.batch.examples}
        for section, values in (("model", asdict(self.model)), ("data", asdict(self.data))):
            recipe |= {f"{section}.{k}": v for k, v in values.items() if k not in free[section]}
        recipe |= {f"optim.{k}": v for k, v in self.optim.recipe().items()}
        recipe |= {
            "precision": self.precision.name,
            "trainer.max_epochs": self.trainer.max_epochs,
            "trainer.max_steps": self.trainer.max_steps,
        }
        # Only in a rehearsal's: that of a run stays as it is written in checkpoints from before there was the key.
        longest = self.trainer.longest_steps
        return recipe if longest is None else {**recipe, "trainer.longest_steps": longest}


def config_folder() -> Path:
    """``conf/`` of the checkout, or the copy inside an installed package."""
    checkout = Path(__file__).parents[4] / "conf"
    return checkout if checkout.is_dir() else Path(str(resources.files("galpaca") / "conf"))
