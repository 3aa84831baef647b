"""Checks that as many processes were launched as the run needs: otherwise they would wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping

from galpaca.app.cluster.ranks import slurm_nodes, slurm_tasks
from galpaca.errors import InputError
from galpaca.training.specs import TrainerSpec


def check_launch(asked: TrainerSpec, environment: Mapping[str, str] = os.environ) -> None:
    """Compares what torchrun or SLURM launched with ``trainer.devices`` and ``trainer.num_nodes``.

    Raises:
        InputError: the numbers differ; shows the lines to change.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        _check_torchrun(asked, environment)
    elif {
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
    } & environment.keys() and "LOCAL_RANK" not in environment:  # not a child of Lightning's own launcher
        _check_slurm(asked, environment)


def _check_torchrun(asked: TrainerSpec, environment: Mapping[str, str]) -> None:
    per_node, total = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    if (per_node, total) == (asked.devices, asked.num_ranks):
        return
    raise InputError(
        f"torchrun started {total} processes, {per_node} per node, but the run needs {_wanted(asked)}",
        where="trainer.devices and trainer.num_nodes",
        fix=f"torchrun --nnodes={asked.num_nodes} --nproc-per-node={asked.devices} ...; "
        f"or trainer.devices={per_node} trainer.num_nodes={max(1, total // per_node)}",
    )


def _check_slurm(asked: TrainerSpec, environment: Mapping[str, str]) -> None:
    tasks, nodes = slurm_tasks(environment), slurm_nodes(environment)
    in_step, per_node = "SLURM_STEP_ID" in environment, environment.get("SLURM_NTASKS_PER_NODE", "").split("(")[0]
    if asked.num_ranks == tasks == 1 or (asked.num_ranks == 1 and not in_step):
        return
    if in_step and tasks == 1 and asked.num_nodes == 1 and "SLURM_PTY_PORT" in environment:
        return  # a shell on a node, from which Lightning starts the other processes
    if not in_step:
        raise _error(asked, "the command was not started with srun", "one process would wait for the others", "srun ")
    if (tasks, nodes) != (asked.num_ranks, asked.num_nodes):
        found = f"SLURM started {_count(tasks, 'task')} on {_count(nodes, 'node')}"
        raise _error(asked, f"{found}, but the run needs {_wanted(asked)}", "each GPU needs one task", "")
    if per_node != str(asked.devices):
        given = f"--ntasks-per-node={per_node}" if per_node else "--ntasks alone"
        raise _error(asked, f"{given} does not put {asked.devices} tasks on each node", "Lightning requires it", "")


def _error(asked: TrainerSpec, what: str, why: str, srun: str) -> InputError:
    lines = [f"#SBATCH --nodes={asked.num_nodes}", f"#SBATCH --ntasks-per-node={asked.devices}"]
    if asked.accelerator == "gpu":
        lines.append(f"#SBATCH --gres=gpu:{asked.devices}")
    command = f"{srun}python train.py ..." if srun else "or set trainer.devices=N trainer.num_nodes=M to match the job"
    return InputError(
        what,
        where="trainer.devices and trainer.num_nodes",
        why=why,
        fix="\n".join(["in the job script:", *(f"    {line}" for line in lines), f"    {command}"]),
    )


def _wanted(asked: TrainerSpec) -> str:
    return f"{_count(asked.devices, 'process')} on {'each of ' if asked.num_nodes > 1 else ''}" + _count(
        asked.num_nodes, "node"
    )


def _count(number: int, name: str) -> str:
    plural = name if number == 1 else f"{name}{'es' if name.endswith('s') else 's'}"
    return f"{number} {plural}"
