"""The rank of this process, before there is a process group."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from galpaca.runs.host import end_with_parent

# Set by a run's first process before Lightning launches the others from it: its process id.
_LAUNCHER = "GALPACA_LAUNCHER"
# What launchers tell a rank; images of clusters and shells have left-over ones.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")


def is_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun launched this process."""
    return "TORCHELASTIC_RUN_ID" in environment


def is_marked(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is of a run that has begun: its first one, or one that Lightning launched from it."""
    return _LAUNCHER in environment


def has_launcher(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Lightning launched this process from the run's first one."""
    return environment.get(_LAUNCHER, str(os.getpid())) != str(os.getpid())


def mark_launcher() -> None:
    """From here on, what this process starts is launched by it; called before Lightning sets variables of its own."""
    os.environ.setdefault(_LAUNCHER, str(os.getpid()))


def end_with_launcher() -> None:
    """A rank that was launched ends when its launcher is gone: of torchrun's, after it has saved; of the run's first
    process, without which nothing can be saved, at once.
    """
    if is_torchrun():
        end_with_parent(signal.SIGTERM)
    elif has_launcher():
        end_with_parent(signal.SIGKILL)


def stop_launcher(number: int) -> None:
    """Sends a signal on to the run's first process, which waits for this one, and knows of no signal to it alone."""
    with suppress(ProcessLookupError):
        os.kill(int(os.environ[_LAUNCHER]), number)


def global_rank() -> int:
    """This process's rank, from the variables set by torchrun, Lightning's launcher or srun.

    In that order, since the first two may run inside a shell started by srun and inherit its variables. A variable of a
    launcher that did not launch this process does not count.
    """
    if is_torchrun():
        return int(os.environ["RANK"])
    if has_launcher():
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ.get("SLURM_PROCID", 0))


def local_rank() -> int:
    """This process's rank among those of its node."""
    if is_torchrun() or has_launcher():
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ.get("SLURM_LOCALID", 0))


def is_launched_child() -> bool:
    """Whether Lightning launched this process from another one of the run (and watches its exit code)."""
    return has_launcher() and not is_torchrun()


def num_launched() -> int:
    """How many processes torchrun or srun launched for the run; 1 if Lightning launches the others itself."""
    if is_torchrun():
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
