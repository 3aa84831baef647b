"""Training settings as plain dataclasses, cheap to import: errors in them are reported before torch is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from galpaca.errors import Problems
from galpaca.model.compute_spec import compute_dtype
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.method import TuningMethod
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.factory import OptimizerFactory

SCHEDULES = ("cosine", "linear", "constant")
# Marks a field whose keys are among those of its record, with the ``_target_`` that says which they are.
TARGET: Mapping[str, Any] = {"target": True}


@dataclass(frozen=True)
class OptimizerSpec:
    """Learning rate and clipping, whatever the optimizer; the defaults are Stanford Alpaca's.

    Attributes:
        lr: peak learning rate.
        schedule: ``cosine``, ``linear`` (both to 0) or ``constant``, after the warm-up.
        warmup_ratio: fraction of the steps over which the learning rate rises from 0.
        clip_norm: maximum global gradient norm; null disables clipping.
        factory: the optimizer: what ``optim._target_`` names, with the further keys of the group.
    """

    lr: float = 2e-5
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    clip_norm: float | None = 1.0
    factory: OptimizerFactory = field(default_factory=AdamW, metadata=TARGET)

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_number("optim.lr", self.lr, "> 0", "e.g. optim.lr=2e-5")
            problems.check_choice("optim.schedule", self.schedule, SCHEDULES)
            problems.check_number("optim.warmup_ratio", self.warmup_ratio, "in [0, 1]", "e.g. optim.warmup_ratio=0.03")
            if self.clip_norm != math.inf:  # which measures the norm and clips nothing
                problems.check_number("optim.clip_norm", self.clip_norm, "> 0", "null disables clipping")

    def values(self) -> dict[str, Any]:
        """The keys of the group ``optim`` and their values."""
        return {**self._own(), "_target_": self.factory.target(), **asdict(self.factory)}

    def recipe(self) -> dict[str, Any]:
        """Those that decide the trained weights."""
        return {**self._own(), "_target_": self.factory.target(), **self.factory.recipe()}

    def _own(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self) if "target" not in item.metadata}


@dataclass(frozen=True)
class TuningSpec:
    """Which parameters train.

    Attributes:
        method: what ``tuning._target_`` names, with the further keys of the group.
    """

    method: TuningMethod = field(default_factory=FullTuning, metadata=TARGET)


@dataclass(frozen=True)
class GuardSpec:
    """What to do when a loss or gradient is not finite. The update is skipped in any case.

    With 16-mixed the loss scaler itself skips such updates, lowers its scale and continues, up to ``max_skips`` in a
    row.

    Attributes:
        on_non_finite: ``stop`` ends the run; ``skip`` continues without the step; ``rollback`` restores the last
            checkpoint's weights and continues with the next step, so that the updates in between are lost.
        max_skips: most skipped steps or rollbacks before the run stops.
        spike_factor: a loss above this many times the median of the last 50 steps is flagged as a spike; null
            disables the flag.
    """

    on_non_finite: str = "stop"
    max_skips: int = 25
    spike_factor: float | None = 2.0

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("guard.on_non_finite", self.on_non_finite, ("stop", "skip", "rollback"))
            problems.check_at_least_one("guard.", {"max_skips": self.max_skips})
            problems.check_number("guard.spike_factor", self.spike_factor, "> 1", "null disables the flag")


@dataclass(frozen=True)
class PrecisionSpec:
    """Number formats of a run.

    Attributes:
        name: ``32-true``, ``bf16-mixed``, ``16-mixed`` or ``64-true``, as Lightning calls them.
        reduce_dtype: dtype in which FSDP reduces gradients over ranks; Lightning's default is the 16-bit dtype.
        half_residual: under ``single`` and ``ddp``, compute embeddings and layer norms from 16-bit weights, which makes
            the residual stream one of 16 bits; ``fsdp`` always does, and ``fsdp2`` without adapters.
    """

    name: str = "32-true"
    reduce_dtype: str = "float32"
    half_residual: bool = False

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("precision.reduce_dtype", self.reduce_dtype, ("float32", "bfloat16", "float16"))

    @property
    def weight_dtype(self) -> str:
        """Dtype of the trained weights."""
        return "float64" if self.name == "64-true" else "float32"

    @property
    def compute_dtype(self) -> str:
        """Dtype of matrix products."""
        return compute_dtype(self.name)


@dataclass(frozen=True)
class BatchSpec:
    """Size of an optimizer step.

    Attributes:
        examples: examples per optimizer step, whatever the number of GPUs.
        max_tokens: token budget of a micro-batch; affects memory and speed, never the recipe.
    """

    examples: int = 128
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_at_least_one("batch.", asdict(self))


@dataclass(frozen=True)
class TrainerSpec:
    """The machine, and how long to train.

    Attributes:
        accelerator: ``gpu`` or ``cpu``.
        devices: GPUs (or CPU processes) on each node.
        num_nodes: nodes.
        max_epochs: passes over the training examples.
        max_steps: optional limit on optimizer steps; the learning-rate schedule spans the steps that are taken.
        longest_steps: for rehearsals: train only on this many of the longest steps of the plan.
        val_every_steps: steps between validations; default: at the end of each epoch, or, if that
            is sooner, with ``checkpoint.keep_best`` every ``checkpoint.every_steps``. The last step always is.
        early_stopping_patience: validations in a row without a lower validation loss, after which training ends;
            null trains all steps. ``release.checkpoint`` may be the one with the lowest.
        read_metrics_every_steps: most steps between two reads of metrics from the device, about once a second.
        data_workers: data loading processes per rank; 0 is fast enough, since collating a step takes a
            millisecond.
    """

    accelerator: str = "gpu"
    devices: int = 1
    num_nodes: int = 1
    max_epochs: int = 3
    max_steps: int | None = None
    longest_steps: int | None = None
    val_every_steps: int | None = None
    early_stopping_patience: int | None = None
    read_metrics_every_steps: int = 1
    data_workers: int = 0

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("trainer.accelerator", self.accelerator, ("gpu", "cpu"))
            counts = {k: v for k, v in asdict(self).items() if k not in ("accelerator", "data_workers")}
            problems.check_at_least_one("trainer.", counts)
            problems.check_number("trainer.data_workers", self.data_workers, "at least 0", "0 or more")

    @property
    def num_ranks(self) -> int:
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class CheckpointSpec:
    """When to save (besides the last step and a stop by a signal), and which checkpoints to keep.

    Attributes:
        every_steps: steps between checkpoints; null disables saving by steps.
        every_minutes: also save when the last checkpoint is this old.
        every_epoch: also save at the end of each epoch.
        keep_last: number of newest checkpoints to keep.
        keep_every: also keep checkpoints whose step is a multiple of this.
        keep_best: also keep the checkpoint with the lowest validation loss.
        asynchronous: continue training while a checkpoint is written from a copy in host memory.
    """

    every_steps: int | None = 100
    every_minutes: float | None = None
    every_epoch: bool = False
    keep_last: int = 2
    keep_every: int | None = None
    keep_best: bool = False
    asynchronous: bool = True

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a checkpoint is taken after a step, by steps or epochs."""
        periods = (self.every_steps, steps_per_epoch if self.every_epoch else None)
        return any(period is not None and step % period == 0 for period in periods)

    def __post_init__(self) -> None:
        with Problems() as problems:
            counts = {name: getattr(self, name) for name in ("every_steps", "keep_last", "keep_every")}
            problems.check_at_least_one("checkpoint.", counts)
            fix = "checkpoint.every_minutes=15, or null to disable it"
            problems.check_number("checkpoint.every_minutes", self.every_minutes, "> 0", fix)


def steps_between_validations(trainer: TrainerSpec, checkpoint: CheckpointSpec, steps_per_epoch: int) -> int:
    """As it is set; else an epoch, or fewer steps where checkpoints between its ends are judged by their loss."""
    if trainer.val_every_steps is not None:
        return trainer.val_every_steps
    judged = checkpoint.every_steps if checkpoint.keep_best and not checkpoint.every_epoch else None
    return min(judged or steps_per_epoch, steps_per_epoch)


@dataclass(frozen=True)
class SamplesSpec:
    """Sample questions that the model answers greedily during training, into ``samples.jsonl``.

    Attributes:
        prompts: file of questions with the fields instruction, input and category; ``held_out`` for questions of up to
            8 held-out records; null disables samples.
        every_steps: steps between samples; default: at the end of each epoch. Also before the first step and after
            the last.
        max_new_tokens: most tokens per answer; each takes a forward pass.
    """

    prompts: str | None = None
    every_steps: int | None = None
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        with Problems() as problems:
            counts = {"every_steps": self.every_steps, "max_new_tokens": self.max_new_tokens}
            problems.check_at_least_one("samples.", counts)
