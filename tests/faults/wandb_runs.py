"""Runs that are shown at W&B, and what must have arrived there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Started, command, completed
from wandb_server import Received

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

    def syncing(self, *options: str, env: dict[str, str] | None = None) -> Started:
        line = [sys.executable, "-m", "galpaca", "sync", str(self.path), *options]
        return Started(self.server, line, self.folder, env={**self.environment, **(env or {})})

    def sync(self, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return completed(self.syncing(*options, env=env), 120)

    @property
    def id(self) -> str:
        return str(json.loads((self.path / "run.json").read_text(encoding="utf-8"))["id"])

    def step(self) -> int:
        """The last that is in the metrics."""
        metrics = self.path / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0


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


def until(condition: Callable[[], bool], process: Started, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            pytest.fail(completed(process).stderr)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def service_of(process: Started) -> int:
    """W&B's own process, which leaves the process group."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "wandb-core"], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def kill_all(process: Started) -> None:
    """As a scheduler does at the end of its patience."""
    os.kill(service_of(process), signal.SIGKILL)
    process.kill_group()
