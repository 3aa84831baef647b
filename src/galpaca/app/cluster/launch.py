"""Checks that as many processes were launched as the run needs: otherwise they would wait for each other."""

import os
from collections.abc import Mapping

from galpaca.app.cluster.ranks import slurm_nodes, slurm_tasks
from galpaca.errors import InputError
from galpaca.training.specs import TrainerSpec


def check_launch(trainer: TrainerSpec, environment: Mapping[str, str] = os.environ) -> None:
    """Compares what torchrun or SLURM launched with ``trainer.devices`` and ``trainer.num_nodes``.

    Raises:
        InputError: the numbers differ; shows the lines to change.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        _check_torchrun(trainer, environment)
    elif "LOCAL_RANK" in environment:
        return  # a child of Lightning's own launcher
    elif {"SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"} & environment.keys():
        _check_slurm(trainer, environment)


def _check_torchrun(trainer: TrainerSpec, environment: Mapping[str, str]) -> None:
    per_node, total = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    if (per_node, total) == (trainer.devices, trainer.num_ranks):
        return
    raise InputError(
        f"torchrun started {total} processes, {per_node} per node, but the run needs {_wanted(trainer)}",
        where="trainer.devices and trainer.num_nodes",
        fix=f"torchrun --nnodes={trainer.num_nodes} --nproc-per-node={trainer.devices} ...; "
        f"or trainer.devices={per_node} trainer.num_nodes={max(1, total // per_node)}",
    )


def _check_slurm(trainer: TrainerSpec, environment: Mapping[str, str]) -> None:
    tasks, nodes = slurm_tasks(environment), slurm_nodes(environment)
    in_step, per_node = "SLURM_STEP_ID" in environment, environment.get("SLURM_NTASKS_PER_NODE", "").split("(")[0]
    if trainer.num_ranks == tasks == 1 or (trainer.num_ranks == 1 and not in_step):
        return
    if in_step and tasks == 1 and trainer.num_nodes == 1 and "SLURM_PTY_PORT" in environment:
        return  # a shell on a node, from which Lightning starts the other processes
    if not in_step:
        raise _error(trainer, "the command was not started with srun", "one process would wait for the others", "srun ")
    if (tasks, nodes) != (trainer.num_ranks, trainer.num_nodes):
        found = f"SLURM started {_count(tasks, 'task')} on {_count(nodes, 'node')}"
        raise _error(trainer, f"{found}, but the run needs {_wanted(trainer)}", "each GPU needs one task", "")
    if per_node != str(trainer.devices):
        given = f"--ntasks-per-node={per_node}" if per_node else "--ntasks alone"
        raise _error(trainer, f"{given} does not put {trainer.devices} tasks on each node", "Lightning requires it", "")


def _error(trainer: TrainerSpec, what: str, why: str, srun: str) -> InputError:
    lines = [f"#SBATCH --nodes={trainer.num_nodes}", f"#SBATCH --ntasks-per-node={trainer.devices}"]
    if trainer.accelerator == "gpu":
        lines.append(f"#SBATCH --gres=gpu:{trainer.devices}")
    command = f"{srun}python train.py ..." if srun else "or set trainer.devices=N trainer.num_nodes=M to match the job"
    return InputError(
        what,
        where="trainer.devices and trainer.num_nodes",
        why=why,
        fix="\n".join(["in the job script:", *(f"    {line}" for line in lines), f"    {command}"]),
    )


def _wanted(trainer: TrainerSpec) -> str:
    nodes = f"{'each of ' if trainer.num_nodes > 1 else ''}{_count(trainer.num_nodes, 'node')}"
    return f"{_count(trainer.devices, 'process')} on {nodes}"


def _count(number: int, name: str) -> str:
    plural = name if number == 1 else f"{name}{'es' if name.endswith('s') else 's'}"
    return f"{number} {plural}"
