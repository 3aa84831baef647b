"""Checks, before the first step, that disk and host memory have room for the run."""

import shutil

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.train.context import RunContext
from galpaca.app.train.disk_need import disk_need, disk_shortage
from galpaca.errors import Problems
from galpaca.formatting import format_bytes
from galpaca.runs.host import available_memory_bytes


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
