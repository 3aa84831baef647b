"""Checks, before the first step, that disk and host memory have room for the run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.train.context import RunContext
from galpaca.errors import InputError, Problems
from galpaca.formatting import format_bytes
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import available_memory_bytes
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
    return DiskNeed(_checkpoint_bytes(config, num_trained), stay, len(folder.saved_steps()), still)


def check_disk_and_memory(run: RunContext) -> None:
    """Checks disk space and host memory, on rank 0.

    Raises:
        InputError: not enough disk space for the checkpoints to keep, the one being written and the model; or not
            enough host memory for the optimizer's state that is kept there and the copy that a checkpoint is written
            from.
    """
    if global_rank() != 0:
        return
    need = disk_need(run.folder, run.config, run.steps.num_steps, run.start.num_parameters, run.start.num_trained)
    with Problems() as problems:
        if lack := disk_shortage(need, shutil.disk_usage(run.folder.path).free, run.folder.path):
            problems.extend([lack])
        trainer = run.config.trainer
        sharding = run.config.strategy.factory.sharding(trainer.devices, trainer.num_nodes)
        of_state = run.config.optim.factory.host_state_bytes(run.config.precision.weight_dtype)
        state_bytes = round(run.start.num_trained * of_state * sharding.models_per_node(trainer.devices))
        _check_memory(problems, run.config, need.checkpoint_bytes, state_bytes)


def _checkpoint_bytes(config: Config, num_trained: int) -> int:
    dtype = config.precision.weight_dtype
    return num_trained * (dtype_bytes(dtype) + config.optim.factory.state_bytes(dtype))


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


def _check_memory(problems: Problems, config: Config, checkpoint: int, kept: int) -> None:
    """Ranks share a checkpoint, so a node needs memory for its ranks' part only; ``kept`` is what else it holds."""
    available = available_memory_bytes()
    copies = checkpoint * config.trainer.devices // config.trainer.num_ranks
    if available is None:
        return
    if kept > available:
        problems.add(
            f"{format_bytes(available)} of host memory free, but the optimizer's state needs {format_bytes(kept)}",
            where="optim.moments_on",
            fix="optim.moments_on=device, or a machine with more memory",
        )
    elif config.checkpoint.asynchronous and kept + copies > available:
        beside = f", and the optimizer's state {format_bytes(kept)}" if kept else ""
        problems.add(
            f"{format_bytes(available)} of host memory free, but a checkpoint's copy needs {format_bytes(copies)}"
            f"{beside}",
            where="checkpoint.asynchronous",
            why="training continues while a checkpoint is written from a copy in host memory",
            fix="checkpoint.asynchronous=false needs no copy, but training waits for each checkpoint",
        )
