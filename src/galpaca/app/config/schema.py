"""The configuration as typed, frozen records."""

from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from galpaca.data.spec import DataSpec
from galpaca.errors import Problems
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.opt import ModelSpec
from galpaca.runs.recipe import FREE
from galpaca.training import specs


@dataclass(frozen=True)
class HangSpec:
    """Detection of a run that hangs.

    Attributes:
        minutes: time limit for a step (including a checkpoint and loading the next data) or a validation batch; then
            the run ends and saves the stacks of all ranks. Null disables the limit.
        requeue: requeue the SLURM job then, since another node may not hang.
    """

    minutes: float | None = 20.0
    requeue: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_number("hang.minutes", self.minutes, "> 0", "hang.minutes=20, or null to disable it")


@dataclass(frozen=True)
class ReleaseSpec:
    """The released model folder.

    Attributes:
        dtype: dtype of the weights on disk: ``float32``, ``bfloat16`` or ``float16``.
        max_new_tokens: default ``max_new_tokens`` of the released model.
    """

    dtype: str = "float32"
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("release.dtype", self.dtype, ("float32", "bfloat16", "float16"))
            problems.check_at_least_one("release.", {"max_new_tokens": self.max_new_tokens})


@dataclass(frozen=True)
class RunSpec:
    """The run folder: ``<root>/<name>``.

    Attributes:
        name: name of the run.
        root: parent folder of all runs.
        accept_changes: resume even if the recipe or the data changed since the run was started.
    """

    name: str
    root: str = "runs"
    accept_changes: bool = False


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
    batch: specs.BatchSpec = field(default_factory=specs.BatchSpec)
    optim: specs.OptimizerSpec = field(default_factory=specs.OptimizerSpec)
    precision: specs.PrecisionSpec = field(default_factory=specs.PrecisionSpec)
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    trainer: specs.TrainerSpec = field(default_factory=specs.TrainerSpec)
    checkpoint: specs.CheckpointSpec = field(default_factory=specs.CheckpointSpec)
    guard: specs.GuardSpec = field(default_factory=specs.GuardSpec)
    hang: HangSpec = field(default_factory=HangSpec)
    samples: specs.SamplesSpec = field(default_factory=specs.SamplesSpec)
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
        """The same, but of the optimizer only what it says decides the trained weights, and of the sources of a mix
        nothing that is free to change.
        """
        values = self.values()
        free = {key.removeprefix("data.") for keys in FREE.values() for key in keys}
        mix = {name: {k: v for k, v in entry.items() if k not in free} for name, entry in self.data.mix.items()}
        return {**values, "optim": self.optim.recipe(), "data": {**values["data"], "mix": mix}}


def config_folder() -> Path:
    """``conf/`` of the checkout, or the copy inside an installed package."""
    checkout = Path(__file__).parents[4] / "conf"
    return checkout if checkout.is_dir() else Path(str(resources.files("galpaca") / "conf"))
