"""A real SLURM for each test of the cluster."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.places import UnavailableError
from cluster.slurm import Kind, Slurm, fetch, running


@pytest.fixture(scope="session")
def slurm_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SLURM, fetched and unpacked."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        fetch(folder)
    except UnavailableError as error:
        pytest.skip(str(error))
    return folder


@contextlib.contextmanager
def slurm_or_skip(prefix: Path, kind: Kind | None = None) -> Iterator[Slurm]:
    """For fixtures: a test that needs what cannot be had here is skipped, with the reason."""
    with contextlib.ExitStack() as stack:
        try:
            slurm = stack.enter_context(running(prefix, kind))
        except UnavailableError as error:
            pytest.skip(str(error))
        yield slurm


@pytest.fixture
def slurm(slurm_prefix: Path) -> Iterator[Slurm]:
    with slurm_or_skip(slurm_prefix) as slurm:
        yield slurm
