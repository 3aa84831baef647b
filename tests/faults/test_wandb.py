"""Runs that are shown at W&B, whatever becomes of them, of W&B and of the network: every line is there, once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO, Started, command, completed, read_jsonl
from wandb_server import Received, WandbServer, serving

from galpaca.runs.metrics import read_metrics
from galpaca.tracking.rows import line_number, named

STEPS, EVERY = 60, 20
OVERRIDES = (
    "logger=wandb",
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    f"checkpoint.every_steps={EVERY}",
    "data.val_fraction=0.2",
    "trainer.val_every_steps=7",
    "trainer.read_metrics_every_steps=1",
)


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


class Runs:
    """One run folder, started and sent as often as a test likes."""

    def __init__(self, folder: Path, server: str, tokenizer: Path, records: Path) -> None:
        self.folder, self.server, self.tokenizer, self.records = folder, server, tokenizer, records
        self.path = folder / "runs" / "test"
        self.environment = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "WANDB_CACHE_DIR": str(folder)}

    def start(self, *overrides: str, env: dict[str, str] | None = None, hook: str | None = None, **how: Any) -> Started:
        line = command(self.folder, self.tokenizer, self.records, *OVERRIDES, *overrides)
        hook = hook and f"faults.wandb_hooks:{hook}"
        return Started(self.server, line, self.folder, env={**self.environment, **(env or {})}, hook=hook, **how)

    def slow(self, *overrides: str, env: dict[str, str] | None = None, seconds: float = 0.05) -> Started:
        return self.start(*overrides, env=env, hook="slow_steps", hook_arguments=(seconds,))

    def finish(self, *overrides: str, **how: Any) -> subprocess.CompletedProcess[str]:
        done = completed(self.start(*overrides, **how))
        assert done.returncode == 0, done.stderr
        return done

    def syncing(self, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "galpaca", "sync", str(self.path), *options]
        environment = {**os.environ, **self.environment, **(env or {})}
        pipe = subprocess.PIPE
        return subprocess.Popen(line, text=True, env=environment, cwd=self.folder, stdout=pipe, stderr=pipe)

    def sync(self, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return ended(self.syncing(*options, env=env))

    @property
    def id(self) -> str:
        return str(json.loads((self.path / "run.json").read_text(encoding="utf-8"))["id"])

    def step(self) -> int:
        """The last that is in the metrics."""
        metrics = self.path / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0


@pytest.fixture
def runs(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path) -> Runs:
    return Runs(tmp_path, server, tokenizer_folder, records_file)


def ended(process: subprocess.Popen[str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_each_line_once(received: Received, metrics: Path) -> None:
    """The rows that are lines are those of the metrics, figure by figure; times may be those of a step's first time."""
    history = received.history
    assert [one["_step"] for one in history] == list(range(len(history)))
    places = ("row", "samples/row", "system/row")
    assert [one[key] for one in history for key in places if key in one] == [one["_step"] for one in history]
    rows = [one for one in history if "line" in one]
    lines = list(read_metrics(metrics))
    assert [one["line"] for one in rows] == [line_number(line) for line in lines], "lines are missing, or there twice"
    for one, line in zip(rows, lines, strict=True):
        expected = {**named(line), "step": line.step}
        got = {key: value for key, value in one.items() if not key.startswith("_") and key not in ("row", "line")}
        assert got.keys() == expected.keys()
        assert {k: got[k] for k in got if not _of_the_machine(k)} == {
            k: expected[k] for k in expected if not _of_the_machine(k)
        }


def _of_the_machine(name: str) -> bool:
    return name.endswith(("_per_second", "_seconds", "bytes"))


def until(condition: Callable[[], bool], process: Started | subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            pytest.fail(completed(process).stderr if isinstance(process, Started) else ended(process).stderr)
        assert time.monotonic() < deadline
        time.sleep(0.005)


def service_of(process: Started | subprocess.Popen[str]) -> int:
    """W&B's own process, which leaves the process group."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "wandb-core"], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def kill_all(process: Started) -> None:
    """As a scheduler does at the end of its patience."""
    os.kill(service_of(process), signal.SIGKILL)
    process.kill_group()


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
    ended(following)
    following = runs.syncing("--follow", "--wait", env=online)
    until(lambda: at_wandb() == killed_at, following)
    assert following.poll() is None, "it waits for the run to be restarted"

    following.send_signal(signal.SIGINT)
    stopped = ended(following)
    assert (stopped.returncode, stopped.stderr) == (143, "following stopped; galpaca sync sends the rest\n")
    assert received.preempting > 0, "it comes back"

    following = runs.syncing("--follow", "--wait", env=online)
    training = runs.slow(*samples, seconds=0.1)
    until(lambda: at_wandb() > killed_at, following)
    wandb_server.is_down = True
    time.sleep(3)
    wandb_server.is_down = False
    assert completed(training).returncode == 0
    done = ended(following)
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
    until(lambda: runs.step() == 5, process)
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
    until(lambda: runs.step() == EVERY + 3, process)
    process.send_signal(signal.SIGTERM)
    stopped = completed(process)
    assert stopped.returncode == 143, stopped.stderr
    received = wandb_server.runs[runs.id]
    assert received.finishes == [1]
    assert_each_line_once(received, runs.path / "metrics.jsonl")
    process = runs.start(env=online, hook="impatient", hook_arguments=(3.0,))
    until(lambda: runs.step() == EVERY + 8, process)
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
