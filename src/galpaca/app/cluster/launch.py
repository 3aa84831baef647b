"""Checks that as many processes were launched as the run needs: otherwise they would wait for each other."""

import os
from collections.abc import Mapping

from galpaca.app.cluster.ranks import RANKS, SIZES, is_marked, is_torchrun, slurm_nodes, slurm_tasks
from galpaca.errors import InputError
from galpaca.training.specs import TrainerSpec


def check_launch(trainer: TrainerSpec, environment: Mapping[str, str] = os.environ) -> None:
    """Compares what torchrun or SLURM launched with ``trainer.devices`` and ``trainer.num_nodes``.

    Raises:
        InputError: the numbers differ; shows the lines to change. Or variables of a launcher that did not launch this
            process, or a launcher that is not supported.
    """
    if is_torchrun(environment):
        _check_torchrun(trainer, environment)
    elif not is_marked(environment):
        _check_stray(trainer, environment)
        _check_mpi(environment)
        if {"SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"} & environment.keys():
            _check_slurm(trainer, environment)
        elif trainer.num_nodes > 1:
            raise InputError(
                f"one process was started, but the run needs {_wanted(trainer)}",
                where="trainer.num_nodes",
                fix=f"on each node: {_torchrun(trainer)}; or srun, see slurm/",
            )


def _check_stray(trainer: TrainerSpec, environment: Mapping[str, str]) -> None:
    """Variables that nobody has set for this process: believed, they would have it wait for ranks that never come."""
    # What srun says in names of its own; scripts often say it again in torch's names.
    in_step = "SLURM_STEP_ID" in environment and trainer.num_ranks > 1
    said = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "NODE_RANK": "SLURM_NODEID"} if in_step else {}
    expected = {name: environment.get(said.get(name, ""), "0") for name in RANKS}
    expected |= {"WORLD_SIZE": str(slurm_tasks(environment) if in_step else 1)}
    expected |= {"LOCAL_WORLD_SIZE": str(trainer.devices if in_step else 1)}
    is_alone = trainer.num_ranks == 1
    stray = [
        name
        for name in (*RANKS, *SIZES)
        if name in environment and not ((in_step or is_alone) and environment[name] == expected[name])
    ]
    if stray:
        found = ", ".join(f"{name}={environment[name]}" for name in stray)
        raise InputError(
            f"the environment has {found}, but neither torchrun nor srun started this process as that rank",
            where="the environment",
            why="left over from a shell or an image, or from a launcher that is not supported",
            fix=f"unset {' '.join(stray)}; for several nodes: {_torchrun(trainer)}",
        )


_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def _check_mpi(environment: Mapping[str, str]) -> None:
    if "SLURM_STEP_ID" in environment:
        return  # srun sets them as well
    for name in _MPI_SIZES:
        if environment.get(name, "1") != "1":
            raise InputError(
                f"mpirun started {environment[name]} processes, which do not know of each other",
                where=name,
                fix="python train.py ... starts the processes of a node itself; srun or torchrun those of several",
            )


def _torchrun(trainer: TrainerSpec) -> str:
    nodes = str(trainer.num_nodes) if trainer.num_nodes > 1 else "NODES"
    of_node = f"--nnodes={nodes} --node-rank=NODE --master-addr=FIRST_NODE --nproc-per-node={trainer.devices}"
    return f"torchrun {of_node} train.py ..."


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
