"""``--multirun``: a run for each combination of values, in a folder of its own, on any number of ranks."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import LIMIT_SECONDS, command, read_jsonl


@pytest.fixture
def swept(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> list[str]:
    return command(tmp_path, tokenizer_folder, records_file)


def run(line: list[str], *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    given = [word for word in line if not word.startswith("run.name=")]
    return subprocess.run([*given, *words], capture_output=True, text=True, cwd=folder, timeout=LIMIT_SECONDS)


@pytest.mark.slow
def test_ranks_and_flags_in_any_place(swept: list[str], tmp_path: Path) -> None:
    """With the flag behind the overrides, the second of two ranks got Hydra's usage, and the first was killed."""
    words = ("run.name=sw/${seed}", "seed=1,2", "strategy=ddp", "trainer.devices=2", "-m")
    done = run(swept, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for seed in ("1", "2"):
        lines = read_jsonl(tmp_path / "runs/sw" / seed / "metrics.jsonl")
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert not (tmp_path / "multirun").exists()
    assert "all 2 runs are complete" in done.stdout


def test_two_runs_in_one_folder_are_refused_before_the_first(swept: list[str], tmp_path: Path) -> None:
    done = run(swept, "--multirun", "run.name=sw", "optim.lr=1e-5,1e-4,1e-3", folder=tmp_path)
    assert done.returncode == 2
    assert "3 of 3 runs would be in one folder" in done.stderr
    assert "'run.name=sweep/${optim.lr}'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_mistakes_are_found_before_the_first(swept: list[str], tmp_path: Path) -> None:
    done = run(swept, "-m", "run.name=sw/${optim.lr}", "optim.lr=1e-5,-1", "batch.exmaples=3", folder=tmp_path)
    assert done.returncode == 2
    assert "batch.examples" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("values", ["range(1,1)", "interval(0,1)", "glob(*)"])
def test_a_sweep_over_nothing_that_can_be_listed_is_refused(swept: list[str], tmp_path: Path, values: str) -> None:
    """An empty range was an IndexError, and an interval has no end of values."""
    done = run(swept, "-m", "run.name=sw/${seed}", f"seed={values}", folder=tmp_path)
    assert done.returncode == 2
    assert f"error: seed={values}: " in done.stderr
    assert "seed=A,B,C" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_that_is_stopped_saves_its_run_and_starts_no_other(swept: list[str], tmp_path: Path) -> None:
    words = ["-m", "run.name=sw/${seed}", "seed=1,2", "trainer.max_steps=5000", "trainer.max_epochs=5000"]
    line = [word for word in swept if not word.startswith(("run.name=", "trainer.max_steps="))]
    metrics = tmp_path / "runs/sw/1/metrics.jsonl"
    with subprocess.Popen([*line, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert (tmp_path / "runs/sw/1/checkpoints/latest").exists()
    assert not (tmp_path / "runs/sw/2").exists()
