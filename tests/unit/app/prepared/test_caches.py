"""What libraries download and compile goes where a requeued job finds it, and not into a home folder's quota."""

import os
from pathlib import Path

import pytest

from galpaca.app.prepared import caches
from galpaca.app.prepared.caches import keep_caches

NAMES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_DATASETS_CACHE", "HF_HUB_CACHE", *caches._HUB)


@pytest.fixture
def another_disk(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs on a real disk of its own, with none of the variables set."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is taken back
        monkeypatch.delenv(name)
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path.home().stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    return shm / "runs"


def test_compiled_kernels_go_below_the_runs(another_disk: Path, tmp_path: Path) -> None:
    keep_caches(tmp_path)
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / ".cache/compiled/triton")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / ".cache/compiled/inductor")


def test_files_of_the_hub_do_where_that_is_another_disk(another_disk: Path) -> None:
    keep_caches(another_disk)
    assert os.environ["HF_HUB_CACHE"] == str(another_disk / ".cache/hub")
    assert os.environ["HF_DATASETS_CACHE"] == str(another_disk / ".cache/datasets")


def test_on_one_disk_the_cache_of_all_projects_stays(another_disk: Path) -> None:
    keep_caches(Path.home() / "no-such-folder-of-runs")
    assert "HF_HUB_CACHE" not in os.environ


def test_what_a_person_has_set_stays(another_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/mine")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/kernels")
    keep_caches(another_disk)
    assert "HF_HUB_CACHE" not in os.environ
    assert os.environ["TRITON_CACHE_DIR"] == "/kernels"
