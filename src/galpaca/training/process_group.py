"""How the run's processes find each other: said, and not guessed by Lightning from the job's name."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment


def cluster_environment(num_ranks: int) -> ClusterEnvironment:
    """The launcher's, by the variables that it has set: torchrun, srun, or Lightning itself."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchElasticEnvironment()
    if is_srun_step(num_ranks):
        return SLURMEnvironment(auto_requeue=False)  # Lightning would save in the midst of a step
    return LightningEnvironment()


def is_srun_step(num_ranks: int) -> bool:
    """Whether srun has started all the run's processes; not so for one task whose shell starts a run by itself."""
    # Of the step: a shell that salloc has opened is one of one task, and shows the job's number in SLURM_NTASKS.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS")
    return "SLURM_STEP_ID" in os.environ and num_ranks > 1 and tasks == str(num_ranks)
