"""Configuration groups owned by ``app``: batch, trainer, checkpoint, hang, samples, release and run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from galpaca.errors import InputError, Problems


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
        problems = Problems()
        problems.check_at_least_one("batch", asdict(self))
        problems.raise_any()


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
        val_every_steps: steps between validations; default: at the end of each epoch. The last step is always
            validated.
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
    read_metrics_every_steps: int = 1
    data_workers: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check_choice("trainer.accelerator", self.accelerator, ("gpu", "cpu"))
        counts = {k: v for k, v in asdict(self).items() if k not in ("accelerator", "data_workers")}
        problems.check_at_least_one("trainer", counts)
        if self.data_workers < 0:
            problems.add(f"must be at least 0, got {self.data_workers}", where="trainer.data_workers", fix="0 or more")
        problems.raise_any()

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

    def __post_init__(self) -> None:
        problems = Problems()
        counts = {name: getattr(self, name) for name in ("every_steps", "keep_last", "keep_every")}
        problems.check_at_least_one("checkpoint", counts)
        if self.every_minutes is not None and not 0 < self.every_minutes < math.inf:
            problems.add(
                f"must be > 0, got {self.every_minutes}",
                where="checkpoint.every_minutes",
                fix="checkpoint.every_minutes=15, or null to disable it",
            )
        problems.raise_any()


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
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(
                f"must be > 0, got {self.minutes}", where="hang.minutes", fix="hang.minutes=20, or null to disable it"
            )


@dataclass(frozen=True)
class SamplesSpec:
    """Sample questions that the model answers greedily during training, into ``samples.jsonl``.

    Attributes:
        prompts: file of questions with the fields instruction, input and category; null disables samples.
        every_steps: steps between samples; default: at the end of each epoch. Also before the first step and after
            the last.
        max_new_tokens: most tokens per answer; each takes a forward pass.
    """

    prompts: str | None = None
    every_steps: int | None = None
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        problems = Problems()
        counts = {"every_steps": self.every_steps, "max_new_tokens": self.max_new_tokens}
        problems.check_at_least_one("samples", counts)
        problems.raise_any()


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
        problems = Problems()
        problems.check_choice("release.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        problems.check_at_least_one("release", {"max_new_tokens": self.max_new_tokens})
        problems.raise_any()


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
