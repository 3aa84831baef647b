"""Runs that log to W&B, whatever becomes of them, of W&B and of the network: every line is there, once."""

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
from conftest import Started, command, completed, read_jsonl
from wandb_server import WandbServer, serving

from galpaca.training.tracking.rows import named, row

# Rows fill a block of a log, which W&B writes as a whole, in some twenty steps.
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
# What a run sends is there at once.
QUICK = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.1"}
BLOCK_BYTES = 32 * 1024


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


class Runs:
    """One run folder, started as often as a test likes."""

    def __init__(self, folder: Path, server: str, tokenizer: Path, records: Path) -> None:
        self.folder, self.server, self.tokenizer, self.records = folder, server, tokenizer, records
        self.path = folder / "runs" / "test"
        self.environment = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "WANDB_CACHE_DIR": str(folder)}

    def start(self, *overrides: str, env: dict[str, str] | None = None, hook: str | None = None, **how: Any) -> Started:
        line = command(self.folder, self.tokenizer, self.records, *OVERRIDES, *overrides)
        hook = hook and f"faults.wandb_hooks:{hook}"
        return Started(self.server, line, self.folder, env={**self.environment, **(env or {})}, hook=hook, **how)

    def slow(self, env: dict[str, str] | None = None, seconds: float = 0.05) -> Started:
        return self.start(env=env, hook="slow_steps", hook_arguments=(seconds,))

    def finish(self, **how: Any) -> subprocess.CompletedProcess[str]:
        done = completed(self.start(**how))
        assert done.returncode == 0, done.stderr
        return done

    def sync(self, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "galpaca", "sync", str(self.path), *options]
        environment = {**os.environ, **self.environment, **(env or {})}
        return subprocess.run(line, capture_output=True, text=True, timeout=200, env=environment, cwd=self.folder)

    @property
    def id(self) -> str:
        return str(json.loads((self.path / "run.json").read_text(encoding="utf-8"))["id"])

    def logs(self) -> list[Path]:
        files = [file for file in self.path.glob("wandb/*run-*/*.wandb") if not file.parent.is_symlink()]
        return sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))

    def rows(self) -> list[dict[str, Any]]:
        """Of all logs, oldest first."""
        return [one["history"]["item"] for file in self.logs() for one in records(file) if one["type"] == "history"]

    def step(self) -> int:
        """The last that is in the metrics."""
        metrics = self.path / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0


@pytest.fixture
def runs(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path) -> Runs:
    return Runs(tmp_path, server, tokenizer_folder, records_file)


def records(file: Path) -> list[dict[str, Any]]:
    """A log as W&B itself reads it."""
    line = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "WANDB_MODE": "offline"})
    return [json.loads(text) for text in done.stdout.splitlines()]


def without_its_own(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("_")}


def assert_each_line_once(rows: list[dict[str, Any]], metrics: Path, *, in_order: bool = True) -> None:
    """The rows that are lines are those of the metrics, figure by figure; times may be those of a step's first time."""
    got = [without_its_own(one) for one in rows if "line" in one]
    expected = [row(named(line), int(str(line["step"]))) for line in read_jsonl(metrics)]
    assert [one["line"] for one in got] == [one["line"] for one in expected], "lines are missing, or there twice"
    for one, other in zip(got, expected, strict=True):
        assert {k: v for k, v in one.items() if not _of_the_machine(k)} == {
            k: v for k, v in other.items() if not _of_the_machine(k)
        }


def _of_the_machine(name: str) -> bool:
    return name.endswith(("_per_second", "_seconds", "bytes"))


def until(condition: Callable[[], bool], process: Started, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, completed(process).stderr
        assert time.monotonic() < deadline
        time.sleep(0.005)


def service_of(process: Started) -> int:
    """W&B's own process, which leaves the process group."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "wandb-core"], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def kill_all(process: Started) -> None:
    """As a scheduler does at the end of its patience."""
    service = service_of(process)
    os.kill(service, signal.SIGKILL)
    process.kill_group()


def test_everything_is_logged_without_a_network(runs: Runs) -> None:
    """Every figure of every line, in order; the configuration; what the run is made of; its record at the end."""
    done = runs.finish()
    (log,) = runs.logs()
    read = records(log)
    rows = [without_its_own(one["history"]["item"]) for one in read if one["type"] == "history"]
    expected = [row(named(line), int(str(line["step"]))) for line in read_jsonl(runs.path / "metrics.jsonl")]
    assert [one for one in rows if "line" in one] == expected
    assert len(expected) > STEPS
    config: dict[str, Any] = {}
    for one in read:
        config |= one.get("config", {}).get("update", {}) if one["type"] == "config" else {}
    record = json.loads((runs.path / "run.json").read_text(encoding="utf-8"))
    assert config["config"]["batch"] == {"examples": 8, "max_tokens": 4096}
    assert config["receipt"] == record["receipt"]
    (artifact,) = [one["artifact"] for one in read if one["type"] == "artifact"]
    assert artifact["name"] == f"run-{record['id']}"
    assert {one["path"] for one in artifact["manifest"]["contents"]} == {"run.json", "config.yaml"}
    kept = [Path(one["local_path"]) for one in artifact["manifest"]["contents"] if one["path"] == "run.json"]
    assert json.loads(kept[0].read_text(encoding="utf-8"))["final"] == record["final"]
    metrics = [one["metric"] for one in read if one["type"] == "metric"]
    assert {"glob_name": "*", "step_metric": "step"}.items() <= metrics[-1].items()
    assert any(one["type"] == "stats" for one in read)
    assert f"galpaca sync {runs.path}" in done.stdout


@pytest.mark.slow
def test_a_run_killed_in_steps_that_it_takes_again_is_whole(runs: Runs) -> None:
    """Without a network: killed with W&B, and killed again in the steps that follow its checkpoint."""
    process = runs.slow()
    until(lambda: bool(runs.logs()) and runs.logs()[0].stat().st_size > BLOCK_BYTES, process)
    until(lambda: runs.step() % EVERY == EVERY - 2, process)
    first = runs.step()
    kill_all(process)
    process = runs.slow()
    until(lambda: first - EVERY // 2 < runs.step() < first and len(runs.logs()) == 2, process)
    kill_all(process)
    runs.finish()
    assert len(runs.logs()) == 3
    assert {file.name for file in runs.logs()} == {f"run-{runs.id}.wandb"}
    lines = [one["line"] for one in runs.rows() if "line" in one]
    assert lines, "the first log has kept nothing"
    assert [one for one in records(runs.logs()[0]) if one["type"] == "history"], "nothing of it had been written"
    assert_each_line_once(runs.rows(), runs.path / "metrics.jsonl")
