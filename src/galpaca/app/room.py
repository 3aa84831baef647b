"""Whether the disk and the host's memory have room for what a run will keep, told before its first step."""

from __future__ import annotations

import shutil

from galpaca.app.config import Config
from galpaca.app.ranks import global_rank
from galpaca.errors import Problems
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import available_memory_bytes


def check_room(folder: RunFolder, config: Config, num_steps: int, num_parameters: int) -> None:
    """Raises:
    InputError: the disk has no room for the checkpoints that will stay, the one being written, and the model; or the
        host's memory none for the copy that is written beside the training.
    """
    if global_rank() != 0:
        return
    of_weight = 8 if config.precision.name == "64-true" else 4
    of_moment = 2 if config.optim.moments_dtype == "bfloat16" else of_weight
    checkpoint = num_parameters * (of_weight + 2 * of_moment)
    problems = Problems()
    _check_disk(problems, folder, config, num_steps, num_parameters, checkpoint)
    _check_memory(problems, config, checkpoint)
    problems.raise_any()


def _check_disk(
    problems: Problems, folder: RunFolder, config: Config, num_steps: int, num_parameters: int, checkpoint: int
) -> None:
    saving = config.checkpoint
    stay = saving.keep_last + 1 + saving.keep_best + (num_steps // saving.keep_every if saving.keep_every else 0)
    if saving.every_minutes is None and not saving.every_epoch:
        stay = min(stay, num_steps // (saving.every_steps or num_steps) + 1)
    model = 0 if folder.model.is_dir() else num_parameters * (4 if config.release.dtype == "float32" else 2)
    wanted = max(0, stay - len(folder.saved_steps())) * checkpoint + model
    free = shutil.disk_usage(folder.path).free
    if wanted > free:
        problems.add(
            f"the disk has {free / 2**30:.2f} GiB free and the run wants {wanted / 2**30:.2f} GiB",
            where=folder.path,
            why=f"{checkpoint / 2**30:.2f} GiB a checkpoint, {stay} of them with the one being written, and "
            f"{model / 2**30:.2f} GiB for the model",
            fix="make room; run.root=FOLDER on another disk; or a smaller checkpoint.keep_last",
        )


def _check_memory(problems: Problems, config: Config, checkpoint: int) -> None:
    """Ranks share a checkpoint, so that a node holds its ranks' part of it."""
    available = available_memory_bytes()
    copies = checkpoint * config.trainer.devices // config.trainer.num_ranks
    if config.checkpoint.asynchronous and available is not None and copies > available:
        problems.add(
            f"{available / 2**30:.1f} GiB of host memory are free and a checkpoint's copy takes {copies / 2**30:.1f}",
            where="checkpoint.asynchronous",
            why="training goes on while a checkpoint is written, from a copy in host memory",
            fix="checkpoint.asynchronous=false copies nothing, and training waits",
        )
