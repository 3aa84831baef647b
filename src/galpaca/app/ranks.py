"""Which of the run's processes this is, before there is a process group."""

import os


def global_rank() -> int:
    """This process's rank by what its launcher set: torchrun, Lightning's own launcher, or srun.

    In that order, since the other two may work inside a shell that srun has started, and inherit its variables.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def is_launched_child() -> bool:
    """Whether Lightning in another process of this run started this one (and watches its exit code)."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


def num_launched() -> int:
    """How many processes torchrun or srun has started for the run; 1 where Lightning starts the others itself."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if "SLURM_STEP_ID" in os.environ else 1
