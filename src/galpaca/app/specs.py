"""Groups of the configuration that no floor below has: the step, the machine, checkpoints, the release, the run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from galpaca.errors import InputError, Problems


@dataclass(frozen=True)
class BatchSpec:
    """One optimizer step.

    Attributes:
        examples: examples a step, whatever the number of GPUs.
        max_tokens: budget of a micro-batch; a matter of memory, never of the recipe.
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
        max_steps: fewer optimizer steps than that, where given; the schedule spans the steps that are taken.
        longest_steps: for rehearsals: train on so many steps of that plan, those that take longest.
        val_every_steps: steps between validations; by default one at the end of each epoch. There is always one at
            the end.
        read_metrics_every_steps: most steps between two reads of the device's figures, which come about once a second.
        data_workers: processes beside each rank that put its steps together ahead of time; 0 is fast enough, since a
            step takes a millisecond.
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
            problems.add(f"{self.data_workers} is too few", where="trainer.data_workers", fix="0 or more")
        problems.raise_any()

    @property
    def num_ranks(self) -> int:
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class CheckpointSpec:
    """When to save (besides the end, and a stop by a signal), and which checkpoints stay.

    Attributes:
        every_steps: steps between two; null for none by steps.
        every_minutes: also as soon as the last one is that old.
        every_epoch: also at the end of each epoch.
        keep_last: the newest so many stay.
        keep_every: those of its multiples stay too.
        keep_best: the one with the lowest validation loss stays too.
        asynchronous: train on while a checkpoint is written, from a copy in host memory.
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
                f"{self.every_minutes} minutes", where="checkpoint.every_minutes", fix="above 0, or null for none"
            )
        problems.raise_any()


@dataclass(frozen=True)
class HangSpec:
    """A run that stands still.

    Attributes:
        minutes: most that a step may take, with what comes before the next one (a checkpoint, the next data) or
            between two batches of a validation; then the run ends with all ranks' stacks. Null waits for ever.
        requeue: put a job of SLURM back into the queue then, since the next node may do better.
    """

    minutes: float | None = 20.0
    requeue: bool = True

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InputError(f"{self.minutes} minutes", where="hang.minutes", fix="above 0, or null for no limit")


@dataclass(frozen=True)
class SamplesSpec:
    """Questions that the model answers greedily while it is trained, into ``samples.jsonl``.

    Attributes:
        prompts: file of questions with the fields instruction, input and category; null for none.
        every_steps: steps between two times; by default at the end of each epoch. Also before the first step and after
            the last.
        max_new_tokens: most tokens of an answer; each takes a forward pass.
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
    """The released folder.

    Attributes:
        dtype: of the weights on disk: ``float32``, ``bfloat16`` or ``float16``.
        max_new_tokens: default length of an answer.
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
