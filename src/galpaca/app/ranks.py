"""Which of the run's processes this is, before there is a process group."""

import os


def global_rank() -> int:
    """This process's rank by what its launcher set: torchrun, srun, or Lightning's own launcher."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def is_launched_child() -> bool:
    """Whether Lightning in another process of this run started this one (and watches its exit code)."""
    launchers = ("RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in launchers)


def num_launched() -> int | None:
    """How many processes torchrun or srun started for this run; None where Lightning will start them itself."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # Under these names of a job Lightning takes the shell for a terminal.
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ["SLURM_NTASKS"])
    return None
