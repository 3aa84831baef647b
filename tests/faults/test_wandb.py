"""Runs that are shown at W&B, whatever becomes of them and of W&B's process: every line is there, once."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEMO, completed, read_jsonl
from faults.wandb_runs import EVERY, STEPS, Runs, assert_each_line_once, kill_all, service_of, until
from wandb_server import WandbServer, serving


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


@pytest.fixture
def runs(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path) -> Runs:
    return Runs(tmp_path, server, tokenizer_folder, records_file)


@pytest.mark.slow
def test_a_run_killed_online_continues_its_curve(runs: Runs, wandb_server: WandbServer) -> None:
    """Also killed in steps that it computes again, and with W&B's process alone ended, as SIGTERM does to it."""
    online = wandb_server.environment
    samples = (f"samples.prompts={DEMO / 'samples.jsonl'}", "samples.max_new_tokens=4")
    process = runs.slow(*samples, env=online, seconds=0.2)
    until(lambda: any(run.history for run in wandb_server.runs.values()), process)
    until(lambda: runs.step() % EVERY > 6, process)
    first = runs.step()
    kill_all(process)
    process = runs.slow(*samples, env=online, seconds=0.2)
    until(lambda: first // EVERY * EVERY < runs.step() < first, process)
    kill_all(process)
    assert wandb_server.runs[runs.id].finishes == []
    process = runs.slow(*samples, env=online)
    until(lambda: runs.step() > first + 2, process)
    os.kill(service_of(process), signal.SIGTERM)
    done = completed(process)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: W&B") == 2, "lost, and back"
    assert list(wandb_server.runs) == [runs.id]
    received = wandb_server.runs[runs.id]
    assert_each_line_once(received, runs.path / "metrics.jsonl")
    record = json.loads((runs.path / "run.json").read_text(encoding="utf-8"))
    assert received.config["config"]["batch"] == {"examples": 8, "max_tokens": 4096}
    assert received.config["plan"] == record["plan"]
    assert received.artifacts[-1] == f"run-{runs.id}"
    assert received.display_name == "test"
    assert received.finishes == [0]
    steps = [one["samples/step"] for one in received.history if "samples/answers" in one]
    assert steps == sorted({line["step"] for line in read_jsonl(runs.path / "samples.jsonl")})
    system = [one for one in received.history if "system/line" in one]
    assert [one["system/line"] for one in system] == list(range(len(system)))
    assert {"system/host_memory_bytes", "system/host_load"} <= {key for one in system for key in one}
    assert [one["step"] for one in system if "checkpoint/bytes" in one][-1] == STEPS
    assert "galpaca sync" not in done.stdout
    assert not list(runs.path.glob("wandb/**/*.wandb")), "nothing to be read later"


@pytest.mark.slow
def test_sync_follows_a_run_whose_process_has_no_network(runs: Runs, wandb_server: WandbServer) -> None:
    """Killed and resumed in between, while the follower is killed, and its network lost: every line once, and early."""
    online = wandb_server.environment
    samples = (f"samples.prompts={DEMO / 'samples.jsonl'}", "samples.max_new_tokens=4", "samples.every_steps=10")
    training = runs.slow(*samples, seconds=0.2)
    until(lambda: runs.step() >= 3, training)
    received = wandb_server.runs[runs.id]

    def at_wandb() -> int:
        return max((one["step"] for one in received.history if "line" in one), default=0)

    following = runs.syncing("--follow", "--wait", env=online)
    until(lambda: at_wandb() > EVERY, following)
    assert training.poll() is None, "W&B shows it while it trains"
    second = runs.sync("--follow", env=online)
    assert second.returncode == 1
    assert "another process is sending this run to W&B" in second.stderr
    assert f"process {following.pid} on " in second.stderr

    until(lambda: runs.step() % EVERY > 6, training)
    killed_at = runs.step()
    training.kill_group()
    following.kill()
    completed(following, 120)
    following = runs.syncing("--follow", "--wait", env=online)
    until(lambda: at_wandb() == killed_at, following)
    assert following.poll() is None, "it waits for the run to be restarted"

    following.send_signal(signal.SIGINT)
    stopped = completed(following, 120)
    assert (stopped.returncode, stopped.stderr) == (143, "following stopped; galpaca sync sends the rest\n")
    assert received.preempting > 0, "it comes back"

    following = runs.syncing("--follow", "--wait", env=online)
    training = runs.slow(*samples, seconds=0.1)
    until(lambda: at_wandb() > killed_at, following)
    wandb_server.is_down = True
    time.sleep(3)
    wandb_server.is_down = False
    assert completed(training).returncode == 0
    done = completed(following, 120)
    assert done.returncode == 0, done.stderr
    assert "is uploaded to W&B" in done.stdout
    assert_each_line_once(received, runs.path / "metrics.jsonl")
    steps = [one["samples/step"] for one in received.history if "samples/answers" in one]
    assert steps == sorted({line["step"] for line in read_jsonl(runs.path / "samples.jsonl")})
    numbers = [one["system/line"] for one in received.history if "system/line" in one]
    assert numbers == list(range(len((runs.path / "system.jsonl").read_text(encoding="utf-8").splitlines())))
    assert not received.events, "the machine that sends is not the one that trains"
    assert received.finishes[-1] == 0
    assert (done.stdout + done.stderr).count("Traceback") == 0
