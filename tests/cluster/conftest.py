"""A real SLURM for each test of the cluster."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DEMO

from cluster.forking import make_environment
from cluster.jobs import Desk
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


Forking = Callable[..., Desk]


@pytest.fixture(scope="module")
def desk(slurm_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    # A job that must make room gets SIGTERM only.
    with slurm_or_skip(slurm_prefix, Kind(preempt_user_signal=False, kill_wait_seconds=30)) as slurm:
        folder = tmp_path_factory.mktemp("jobs")
        records = folder / "records.json"
        records.write_text(json.dumps(json.loads((DEMO / "records.json").read_text(encoding="utf-8"))[::12][:40]))
        yield Desk(slurm, folder, DEMO / "tokenizer", records)


@pytest.fixture
def forking(desk: Desk, server: str, tmp_path: Path) -> Forking:
    """The same for jobs that get a signal after their imports or none, and are spared the imports.

    With a test of bash's as its argument, tasks for which it holds import like any other process.
    """

    def forking(real: str = "false") -> Desk:
        python = make_environment(tmp_path / "forking", server, real) / "bin" / "python"
        return Desk(desk.slurm, desk.folder, desk.tokenizer, desk.records, str(python))

    return forking
