"""A real SLURM for each test of the cluster."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.slurm import Slurm, UnavailableError, fetch


@pytest.fixture(scope="session")
def slurm_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SLURM, fetched and unpacked."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        fetch(folder)
    except UnavailableError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture
def slurm(slurm_prefix: Path) -> Iterator[Slurm]:
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="galpaca-slurm-", ignore_cleanup_errors=True) as name:
        slurm = Slurm(Path(name), slurm_prefix)
        try:
            slurm.start()
        except (UnavailableError, subprocess.SubprocessError) as error:
            slurm.stop()
            pytest.skip(f"SLURM does not start here: {error}")
        yield slurm
        slurm.stop()
