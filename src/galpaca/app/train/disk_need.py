"""Disk space that a run will need; cheap to import."""

from dataclasses import dataclass
from pathlib import Path

from galpaca.app.config.schema import Config
from galpaca.errors import InputError
from galpaca.formatting import format_bytes
from galpaca.runs.folder import RunFolder
from galpaca.training.optimizers.factory import dtype_bytes


@dataclass(frozen=True)
class DiskNeed:
    """Disk space that a run will still need.

    Attributes:
        checkpoint_bytes: size of a checkpoint.
        num_checkpoints: checkpoints that are kept, including the one being written.
        num_saved: how many of them exist already.
        model_bytes: size of the released weights; 0 if they exist already.
    """

    checkpoint_bytes: int
    num_checkpoints: int
    num_saved: int
    model_bytes: int

    @property
    def total_bytes(self) -> int:
        return max(0, self.num_checkpoints - self.num_saved) * self.checkpoint_bytes + self.model_bytes


def disk_need(folder: RunFolder, config: Config, num_steps: int, num_parameters: int, num_trained: int) -> DiskNeed:
    """Disk space for the checkpoints that are kept, the one being written, and the model.

    Args:
        num_steps: steps of the whole run.
        num_parameters: all of the model, which is released.
        num_trained: those of them that checkpoints hold.
    """
    saving = config.checkpoint
    stay = saving.keep_last + 1 + saving.keep_best + (num_steps // saving.keep_every if saving.keep_every else 0)
    if saving.every_minutes is None and not saving.every_epoch:
        stay = min(stay, num_steps // (saving.every_steps or num_steps) + 1)
    released = {"model": num_parameters * dtype_bytes(config.release.dtype), "adapter": 4 * num_trained}
    still = sum(released[name] for name in config.released_folders if not folder.has_all([name]))
    return DiskNeed(checkpoint_bytes(config, num_trained), stay, len(folder.saved_steps()), still)


def disk_shortage(need: DiskNeed, free_bytes: int, where: Path) -> InputError | None:
    """The error if the disk of ``where`` has less free space than needed."""
    if need.total_bytes <= free_bytes:
        return None
    return InputError(
        f"{format_bytes(free_bytes)} of disk space free, but the run needs {format_bytes(need.total_bytes)}",
        where=where,
        why=f"{format_bytes(need.checkpoint_bytes)} a checkpoint, {need.num_checkpoints} of them with the one "
        f"being written, and {format_bytes(need.model_bytes)} for the model",
        fix="free disk space, set run.root=FOLDER on another disk, or lower checkpoint.keep_last",
    )


def checkpoint_bytes(config: Config, num_trained: int) -> int:
    """Of all ranks together: weights and the optimizer's state of what is trained."""
    dtype = config.precision.weight_dtype
    return num_trained * (dtype_bytes(dtype) + config.optim.factory.state_bytes(dtype))
