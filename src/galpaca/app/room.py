"""Whether the disk and the host's memory have room for what a run will keep, told before its first step."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from galpaca.app.config import Config
from galpaca.app.ranks import global_rank
from galpaca.errors import InputError, Problems
from galpaca.formatting import format_bytes
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import available_memory_bytes


@dataclass(frozen=True)
class DiskNeed:
    """What a run will still write and keep.

    Attributes:
        checkpoint_bytes: of one.
        num_checkpoints: that stay, with the one being written.
        num_saved: of them that are there already.
        model_bytes: of the released weights; 0 where they are there already.
    """

    checkpoint_bytes: int
    num_checkpoints: int
    num_saved: int
    model_bytes: int

    @property
    def total_bytes(self) -> int:
        return max(0, self.num_checkpoints - self.num_saved) * self.checkpoint_bytes + self.model_bytes


def disk_need(folder: RunFolder, config: Config, num_steps: int, num_parameters: int) -> DiskNeed:
    """Room on the disk for the checkpoints that will stay, the one being written, and the model."""
    saving = config.checkpoint
    stay = saving.keep_last + 1 + saving.keep_best + (num_steps // saving.keep_every if saving.keep_every else 0)
    if saving.every_minutes is None and not saving.every_epoch:
        stay = min(stay, num_steps // (saving.every_steps or num_steps) + 1)
    model = 0 if folder.model.is_dir() else num_parameters * (4 if config.release.dtype == "float32" else 2)
    return DiskNeed(_checkpoint_bytes(config, num_parameters), stay, len(folder.saved_steps()), model)


def check_room(folder: RunFolder, config: Config, num_steps: int, num_parameters: int) -> None:
    """Raises:
    InputError: the disk has no room for the checkpoints that will stay, the one being written, and the model; or the
        host's memory none for the copy that is written beside the training.
    """
    if global_rank() != 0:
        return
    need = disk_need(folder, config, num_steps, num_parameters)
    problems = Problems()
    if lack := disk_lack(need, shutil.disk_usage(folder.path).free, folder.path):
        problems.extend([lack])
    _check_memory(problems, config, need.checkpoint_bytes)
    problems.raise_any()


def _checkpoint_bytes(config: Config, num_parameters: int) -> int:
    of_weight = 8 if config.precision.name == "64-true" else 4
    of_moment = 2 if config.optim.moments_dtype == "bfloat16" else of_weight
    return num_parameters * (of_weight + 2 * of_moment)


def disk_lack(need: DiskNeed, free_bytes: int, where: Path) -> InputError | None:
    """What to tell where the disk of ``where`` has less room than needed."""
    if need.total_bytes <= free_bytes:
        return None
    return InputError(
        f"the disk has {format_bytes(free_bytes)} free and the run wants {format_bytes(need.total_bytes)}",
        where=where,
        why=f"{format_bytes(need.checkpoint_bytes)} a checkpoint, {need.num_checkpoints} of them with the one "
        f"being written, and {format_bytes(need.model_bytes)} for the model",
        fix="make room; run.root=FOLDER on another disk; or a smaller checkpoint.keep_last",
    )


def _check_memory(problems: Problems, config: Config, checkpoint: int) -> None:
    """Ranks share a checkpoint, so that a node holds its ranks' part of it."""
    available = available_memory_bytes()
    copies = checkpoint * config.trainer.devices // config.trainer.num_ranks
    if config.checkpoint.asynchronous and available is not None and copies > available:
        problems.add(
            f"{format_bytes(available)} of host memory are free and a checkpoint's copy takes {format_bytes(copies)}",
            where="checkpoint.asynchronous",
            why="training goes on while a checkpoint is written, from a copy in host memory",
            fix="checkpoint.asynchronous=false copies nothing, and training waits",
        )
