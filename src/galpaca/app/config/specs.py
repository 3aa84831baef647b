"""Configuration groups owned by ``app``: batch, trainer, checkpoint, hang, samples, release and run."""

from dataclasses import dataclass

from galpaca.errors import Problems


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
