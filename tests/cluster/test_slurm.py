"""The SLURM that tests of the cluster stand on."""

from pathlib import Path

import pytest
from cluster.slurm import Slurm


@pytest.mark.slow
@pytest.mark.cluster
def test_jobs_run_on_both_nodes_with_their_gpus(slurm: Slurm, tmp_path: Path) -> None:
    told = slurm.run(
        "srun", "-N2", "--gres=gpu:4", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES", cwd=tmp_path
    )
    assert sorted(told.splitlines()) == ["node1 0,1,2,3", "node2 0,1,2,3"]
    job = slurm.run("sbatch", "--parsable", "--wrap", "exit 3", cwd=tmp_path).strip()
    assert slurm.wait(job, "FAILED", "COMPLETED")["ExitCode"] == "3:0"
