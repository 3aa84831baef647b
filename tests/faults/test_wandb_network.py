"""Runs that are shown at W&B, whatever is wrong with the network: they end well, and what is missing is sent later."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import completed
from faults.wandb_runs import EVERY, Runs, assert_each_line_once, service_of, until
from wandb_server import WandbServer, serving


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


@pytest.fixture
def runs(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path) -> Runs:
    return Runs(tmp_path, server, tokenizer_folder, records_file)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nobody is there", "a wrong key"])
def test_whatever_is_wrong_with_the_network_a_run_ends_well(runs: Runs, wandb_server: WandbServer, how: str) -> None:
    """Training took a minute and a half to begin when nobody answered, and minutes to end."""
    change = {
        "nobody is there": {"WANDB_BASE_URL": "http://127.0.0.1:1"},
        "a wrong key": {"WANDB_API_KEY": "f" * 40},
    }[how]
    before = time.monotonic()
    done = runs.finish(env=wandb_server.environment | change)
    assert time.monotonic() - before < 100  # on a machine with others; W&B itself would take longer by itself
    assert "Traceback" not in done.stderr
    assert done.stderr.count("warning: W&B") == 1
    assert f"galpaca sync {runs.path}" in done.stdout
    assert wandb_server.runs == {}
    refused = runs.sync(env=wandb_server.environment | change)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert {"nobody is there": "does not respond", "a wrong key": "cannot send the run to W&B"}[how] in refused.stderr


@pytest.mark.slow
def test_a_service_that_hangs_is_not_waited_for(runs: Runs, wandb_server: WandbServer) -> None:
    process = runs.start(env=wandb_server.environment, hook="impatient", hook_arguments=(2.0,))
    until(lambda: runs.step() >= 5, process)
    os.kill(service_of(process), signal.SIGSTOP)
    done = completed(process, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: W&B") == 1
    assert "Traceback" not in done.stderr
    assert f"galpaca sync {runs.path}" in done.stdout


@pytest.mark.slow
def test_a_run_that_is_resumed_before_its_network_dies(runs: Runs, wandb_server: WandbServer) -> None:
    """W&B tries for hours to send what it has; a run that has ended does not wait for it, and sync sends the rest."""
    online = wandb_server.environment
    process = runs.slow(env=online)
    until(lambda: runs.step() >= EVERY + 3, process)
    process.send_signal(signal.SIGTERM)
    stopped = completed(process)
    assert stopped.returncode == 143, stopped.stderr
    received = wandb_server.runs[runs.id]
    assert received.finishes == [1]
    assert_each_line_once(received, runs.path / "metrics.jsonl")
    process = runs.start(env=online, hook="impatient", hook_arguments=(3.0,))
    until(lambda: runs.step() >= EVERY + 8, process)
    wandb_server.is_down = True
    done = completed(process, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: W&B") == 1
    assert "Traceback" not in done.stderr
    assert f"galpaca sync {runs.path}" in done.stdout
    wandb_server.is_down = False
    listed = runs.sync("--dry-run", env={"WANDB_BASE_URL": "http://127.0.0.1:1"})
    assert "missing: nothing" not in listed.stdout
    done = runs.sync(env=online)
    assert done.returncode == 0, done.stderr
    assert_each_line_once(received, runs.path / "metrics.jsonl")
    assert received.finishes[-1] == 0
    again = runs.sync(env=online | {"WANDB_BASE_URL": "http://127.0.0.1:1"})
    assert again.returncode == 0, "there is nothing to send, and no network is used"
    assert "missing: nothing" in again.stdout
