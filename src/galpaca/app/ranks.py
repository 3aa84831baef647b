"""The rank of this process, before there is a process group."""

import os


def global_rank() -> int:
    """This process's rank, from the variables set by torchrun, Lightning's launcher or srun.

    In that order, since the first two may run inside a shell started by srun and inherit its variables.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def is_launched_child() -> bool:
    """Whether Lightning launched this process from another one of the run (and watches its exit code)."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


def num_launched() -> int:
    """How many processes torchrun or srun launched for the run; 1 if Lightning launches the others itself."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if "SLURM_STEP_ID" in os.environ else 1
