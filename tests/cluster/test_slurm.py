"""The SLURM that tests of the cluster stand on."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.slurm import Slurm, UnavailableError, fetch


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SLURM, fetched and unpacked."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        fetch(folder)
    except UnavailableError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture
def slurm(prefix: Path) -> Iterator[Slurm]:
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="galpaca-slurm-", ignore_cleanup_errors=True) as name:
        slurm = Slurm(Path(name), prefix)
        try:
            slurm.start()
        except (UnavailableError, subprocess.SubprocessError) as error:
            slurm.stop()
            pytest.skip(f"SLURM does not start here: {error}")
        yield slurm
        slurm.stop()


@pytest.mark.slow
@pytest.mark.cluster
def test_jobs_run_on_both_nodes_with_their_gpus(slurm: Slurm, tmp_path: Path) -> None:
    told = slurm.run(
        "srun", "-N2", "--gres=gpu:4", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES", cwd=tmp_path
    )
    assert sorted(told.splitlines()) == ["node1 0,1,2,3", "node2 0,1,2,3"]
    job = slurm.run("sbatch", "--parsable", "--wrap", "exit 3", cwd=tmp_path).strip()
    assert slurm.wait(job, "FAILED", "COMPLETED")["ExitCode"] == "3:0"
