"""The rank of this process, before there is a process group."""

import os
from collections.abc import Mapping


def global_rank() -> int:
    """This process's rank, from the variables set by torchrun, Lightning's launcher or srun.

    In that order, since the first two may run inside a shell started by srun and inherit its variables.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def local_rank() -> int:
    """This process's rank among those of its node."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


def is_launched_child() -> bool:
    """Whether Lightning launched this process from another one of the run (and watches its exit code)."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


def num_launched() -> int:
    """How many processes torchrun or srun launched for the run; 1 if Lightning launches the others itself."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return slurm_tasks(os.environ) if "SLURM_STEP_ID" in os.environ else 1


def slurm_tasks(environment: Mapping[str, str]) -> int:
    """Tasks of the step that this process is in, or of the job.

    A shell that salloc has opened is a step of one task, and shows the job's number as well as its own.
    """
    return int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)


def slurm_nodes(environment: Mapping[str, str]) -> int:
    """Nodes of the step that this process is in, or of the job."""
    return int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
