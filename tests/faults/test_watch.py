"""``galpaca watch`` follows real runs to whatever end they come to, and tells which."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Started, Train, command, completed

pytestmark = pytest.mark.slow

Watch = Callable[..., subprocess.CompletedProcess[str]]
LONG = ("trainer.max_steps=100000", "trainer.max_epochs=100000", "checkpoint.every_steps=10", "checkpoint.keep_last=1")


def watching(run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "galpaca", "watch", str(run), "--every", "0.1", *options]


def watch(run: Path, *options: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(watching(run, *options), capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "test"


@pytest.fixture
def start(server: str, tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> Iterator[Callable[..., Started]]:
    """Starts a run and returns when it has taken a few steps."""
    started: list[Started] = []

    def start_(*overrides: str, at_least: int = 12, env: dict[str, str] | None = None) -> Started:
        line = command(tmp_path, tokenizer_folder, records_file, *overrides)
        process = Started(server, line, tmp_path, env=env)
        started.append(process)
        metrics, deadline = tmp_path / "runs" / "test" / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.is_file() and metrics.read_bytes().count(b"\n") >= at_least:
                break
            time.sleep(0.05)
        return process

    yield start_
    for process in started:
        process.kill()
        completed(process)


def test_a_run_is_followed_until_it_is_killed(start: Callable[..., Started], run: Path) -> None:
    process = start(*LONG)
    now = watch(run, "--once")
    assert now.returncode == 0
    assert now.stdout.startswith("test: running (process ")
    assert " of 100,000 (0%), loss " in now.stdout
    assert " left " in now.stdout
    watcher = subprocess.Popen(watching(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert watcher.stdout.readline().startswith("test: running")
    process.kill()
    out, err = watcher.communicate(timeout=200)
    assert watcher.returncode == 1
    assert out.startswith("test: killed (process ")
    assert "saved up to step" in out
    assert "the run was killed before it was complete" in err
    assert "resume from its last checkpoint" in err


def test_a_run_that_was_signalled_to_stop_says_so(start: Callable[..., Started], run: Path) -> None:
    process = start(*LONG)
    process.send_signal(15)
    assert process.wait(60) == 143
    done = watch(run)
    assert done.returncode == 1
    assert done.stdout.startswith("test: stopped (")
    assert "the run was stopped before it was complete" in done.stderr


def test_a_job_that_is_stopped_is_waited_for_until_it_goes_on(start: Callable[..., Started], run: Path) -> None:
    """A scheduler stops and starts it again; nobody should have to start the watch again."""
    process = start(*LONG, env={"SLURM_JOB_ID": "17"})
    process.kill()
    process.wait(30)
    watcher = subprocess.Popen(watching(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert "waiting for it to resume" in watcher.stdout.readline()
    # The same job once more, with fewer steps to go.
    steps = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    again = start(
        *LONG[2:], f"trainer.max_steps={steps + 20}", LONG[1], "run.accept_changes=true", env={"SLURM_JOB_ID": "17"}
    )
    assert again.wait(120) == 0
    out, err = watcher.communicate(timeout=200)
    assert watcher.returncode == 0, err
    assert out.splitlines()[-1].startswith(f"test: complete (its model is released), step {steps + 20} of")


def test_a_run_that_fails_tells_why(train: Train, run: Path) -> None:
    """A learning rate at which the loss is soon no number."""
    failed = train("optim.lr=1e30", "trainer.max_steps=20", "optim.warmup_ratio=0")
    assert failed.returncode == 1, failed.stderr
    done = watch(run)
    assert done.returncode == 1
    assert done.stdout.startswith("test: failed (loss or gradient is not finite")
    assert "the run failed before it was complete" in done.stderr


def test_a_complete_run_ends_the_watch(train: Train, run: Path) -> None:
    assert train().returncode == 0
    done = watch(run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("test: complete (its model is released), step 4 of 4 (100%), loss ")


def test_a_run_that_is_not_there_yet_is_waited_for_on_request(train: Train, run: Path) -> None:
    refused = watch(run)
    assert refused.returncode == 2
    assert "not a run folder" in refused.stderr
    watcher = subprocess.Popen(watching(run, "--wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert watcher.stdout.readline().startswith("waiting for")
    assert train().returncode == 0
    out, err = watcher.communicate(timeout=200)
    assert watcher.returncode == 0, err
    assert "test: complete" in out


def test_a_folder_without_figures(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"id": "abc"}')
    done = watch(tmp_path / "run", "--once")
    assert done.returncode == 0
    assert done.stdout.startswith("run: stopped (no process is writing")
    (tmp_path / "run" / "run.json").write_text("{")
    damaged = watch(tmp_path / "run", "--once")
    assert damaged.returncode == 2
    assert "cannot be read" in damaged.stderr
    assert "Traceback" not in damaged.stderr


def test_the_end_of_training_tells_what_to_type_next(train: Train, run: Path) -> None:
    done = train()
    assert done.returncode == 0
    message = done.stdout[done.stdout.index("done\n") :]
    for needed in (
        "loss",
        "time in training steps",
        "tokens",
        "peak memory",
        f"galpaca report {run}",
        f"galpaca export {run} ",
    ):
        assert needed in message
    assert str(run / "model") in message
    assert str(run / "report.html") in message
    assert "Loss" in (run / "report.html").read_text()


def test_a_report_that_cannot_be_written_fails_no_run(train: Train, run: Path) -> None:
    (run / "report.html").mkdir(parents=True)
    done = train()
    assert done.returncode == 0, done.stderr
    assert "cannot write the report" in done.stdout
    assert (run / "model").is_dir()
