"""The configuration as typed, frozen records."""

from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from galpaca.data.spec import DataSpec
from galpaca.errors import Problems
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.configuration import recorded
from galpaca.model.families.family import Family
from galpaca.model.spec import ModelSpec
from galpaca.runs.recipe import FREE
from galpaca.training import specs
from galpaca.training.strategies.spec import StrategySpec

MERGE_INTO = ("trained", "original")
RELEASED = ("last", "best")


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
        checkpoint: ``last``, or ``best``: that of the saved checkpoints with the lowest validation loss.
        dtype: dtype of the weights on disk: ``float32``, ``bfloat16`` or ``float16``.
        max_new_tokens: default ``max_new_tokens`` of the released model.
        merge: write ``model/``, the whole model; of adapters, merged. With false only ``adapter/`` is written.
        merge_into: of adapters: into the model's weights as they were rounded or quantized in training
            (``trained``), or as they are in its files (``original``), with which the adapters were not trained.
        example: the model card asks a question of a training record; with false, one of general science.
    """

    checkpoint: str = "last"
    dtype: str = "float32"
    max_new_tokens: int = 512
    merge: bool = True
    merge_into: str = "trained"
    example: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("release.checkpoint", self.checkpoint, RELEASED)
            problems.check_choice("release.dtype", self.dtype, ("float32", "bfloat16", "float16"))
            problems.check_choice("release.merge_into", self.merge_into, MERGE_INTO)
            problems.check_at_least_one("release.", {"max_new_tokens": self.max_new_tokens})


@dataclass(frozen=True)
class RunSpec:
    """The run folder: ``<root>/<name>``.

    Attributes:
        name: name of the run.
        root: parent folder of all runs; by default the variable ``GALPACA_RUNS``, and where that is not set, ``runs``.
        accept_changes: resume even if the recipe or the data changed since the run was started.
    """

    name: str
    root: str = "runs"
    accept_changes: bool = False

    def __post_init__(self) -> None:
        with Problems() as problems:
            if not self.root:
                fix = "run.root=FOLDER, or export GALPACA_RUNS=FOLDER (as slurm/site.env does), or unset it"
                problems.add("is empty", where="run.root", why="GALPACA_RUNS may be set to nothing", fix=fix)
            if not self.name:
                problems.add("is empty", where="run.name", fix="run.name=NAME")


@dataclass(frozen=True)
class Config:
    """A whole run. ``logger`` and each of ``callbacks`` name a ``_target_`` and its arguments.

    Attributes:
        seed: seed of the order of examples, of dropout, and of random initial weights.
    """

    run: RunSpec
    data: DataSpec
    model: ModelSpec
    strategy: StrategySpec
    logger: dict[str, Any]
    callbacks: dict[str, Any] = field(default_factory=dict)
    batch: specs.BatchSpec = field(default_factory=specs.BatchSpec)
    optim: specs.OptimizerSpec = field(default_factory=specs.OptimizerSpec)
    tuning: specs.TuningSpec = field(default_factory=specs.TuningSpec)
    precision: specs.PrecisionSpec = field(default_factory=specs.PrecisionSpec)
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    trainer: specs.TrainerSpec = field(default_factory=specs.TrainerSpec)
    checkpoint: specs.CheckpointSpec = field(default_factory=specs.CheckpointSpec)
    guard: specs.GuardSpec = field(default_factory=specs.GuardSpec)
    hang: HangSpec = field(default_factory=HangSpec)
    samples: specs.SamplesSpec = field(default_factory=specs.SamplesSpec)
    release: ReleaseSpec = field(default_factory=ReleaseSpec)
    seed: int = 42

    def __post_init__(self) -> None:
        best, patience = self.release.checkpoint == "best", self.trainer.early_stopping_patience
        with Problems() as problems:
            judging = [("release.checkpoint", "best", "last")] if best else []
            judging += [("trainer.early_stopping_patience", str(patience), "null")] if patience else []
            for key, value, without in judging if not self.data.validates else ():
                what, why = f"{key}={value} has nothing to choose by", "no record is held out to validate on"
                fix = f"data.val_fraction=0.1, data.val_path=FILE, or {key}={without}"
                problems.add(what, where="data.val_fraction", why=why, fix=fix)
            if best and not self.checkpoint.keep_best:
                fix = "checkpoint.keep_best=true, or release.checkpoint=last"
                problems.add("the best checkpoint would be removed", where="checkpoint.keep_best", fix=fix)

    @property
    def fast_attention(self) -> bool:
        """Whether all examples of a micro-batch go through one attention kernel."""
        from galpaca.model.attention import is_fast

        return is_fast(self.trainer.accelerator, self.precision.name, self.model.attention_dropout)

    @property
    def released_folders(self) -> tuple[str, ...]:
        """Names of what is released, in the order in which it is written."""
        is_adapter = self.tuning.method.adapter_config() is not None
        return (*(("adapter",) if is_adapter else ()), *(("model",) if self.release.merge else ()))

    def on(self, family: Family) -> "Config":
        """The same for a model of a family: what is left to the family is set.

        Raises:
            InputError: a setting does not fit the family.
        """
        problems = Problems()
        problems.collect(lambda: family.check_spec(family.completed(self.model)))
        method = problems.collect(lambda: self.tuning.method.on(family))
        problems.raise_any()
        assert method is not None
        return replace(self, model=family.completed(self.model), tuning=specs.TuningSpec(method))

    def values(self) -> dict[str, Any]:
        """Every key and its value, as in ``config.yaml``."""
        of_targets = {
            "optim": self.optim.values(),
            "tuning": self.tuning.method.values(),
            "strategy": self.strategy.factory.values(),
        }
        return {**asdict(self), **of_targets}

    def recipe_values(self) -> dict[str, Any]:
        """The same, but of optimizer and tuning only what they say decides the trained weights, and of the sources of
        a mix nothing that is free to change.
        """
        values = self.values()
        free = {key.removeprefix("data.") for keys in FREE.values() for key in keys}
        mix = {name: {k: v for k, v in entry.items() if k not in free} for name, entry in self.data.mix.items()}
        method = self.tuning.method
        of_targets = {"optim": self.optim.recipe(), "tuning": method.recipe()}
        model = asdict(recorded(self.model, method.family))
        return {**values, **of_targets, "model": model, "data": {**values["data"], "mix": mix}}


def config_folder() -> Path:
    """``conf/`` of the checkout, or the copy inside an installed package."""
    checkout = Path(__file__).parents[4] / "conf"
    return checkout if checkout.is_dir() else Path(str(resources.files("galpaca") / "conf"))
