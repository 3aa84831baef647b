"""Whether a run goes on, known from files alone."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from galpaca.runs.folder import RunFolder
from galpaca.runs.history import read_history
from galpaca.runs.lock import locked
from galpaca.runs.record_fields import RunContent
from galpaca.runs.state import RunState, run_state
from galpaca.runs.typed import decode

PLAN: dict[str, Any] = {"plan": {"steps": 10, "steps_per_epoch": 5}, "starts": [{"step": 0}]}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path, "run")
    folder.metrics.write_text('{"step": 3, "loss": 1.0, "step_seconds": 0.5}\n')
    return folder


def held(folder: RunFolder, host: str, pid: int, *, started_seconds_ago: float = 60) -> None:
    """As a process leaves its lock that is alive, or was killed."""
    folder.lock.write_text(json.dumps({"host": host, "pid": pid}))
    started = time.time() - started_seconds_ago
    os.utime(folder.lock, (started, started))


def state(folder: RunFolder, record: dict[str, Any] = PLAN, after_seconds: float = 0) -> RunState:
    return run_state(folder, decode(RunContent, record), read_history(folder.metrics), time.time() + after_seconds)


def test_a_process_that_holds_the_lock_is_running(folder: RunFolder) -> None:
    with locked(folder.lock):
        assert state(folder).kind in ("running", "starting")
    assert state(folder).kind == "stopped"


def test_a_process_that_was_killed_is_seen_at_once(folder: RunFolder) -> None:
    holds = "import sys, time, pathlib; from galpaca.runs.lock import locked\nwith locked(pathlib.Path(sys.argv[1])):\n"
    code = holds + "    print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert state(folder).is_alive
    process.kill()
    # Also while nobody has read its exit code, as under a scheduler that is busy.
    deadline = time.monotonic() + 10
    while state(folder).kind != "killed" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state(folder).kind == "killed"
    process.wait()
    process.stdout.close()
    found = state(folder)
    assert found.kind == "killed"
    assert "after step 3, nothing is saved" in found.detail


def test_a_process_that_only_inherited_the_number_is_not_the_run(folder: RunFolder) -> None:
    held(folder, socket.gethostname(), os.getpid(), started_seconds_ago=30 * 24 * 3600)
    assert state(folder).kind == "killed"


def test_on_another_machine_the_age_of_the_last_line_tells(folder: RunFolder) -> None:
    held(folder, "node17", 1)
    assert state(folder).kind == "running"
    late = state(folder, after_seconds=1000)
    assert late.kind == "stalled"
    assert "or the process is gone" in late.detail
    assert late.silent_seconds == pytest.approx(1000, abs=5)


def test_slow_steps_are_given_more_time(folder: RunFolder) -> None:
    folder.metrics.write_text('{"step": 3, "loss": 1.0, "step_seconds": 60}\n')
    held(folder, "node17", 1)
    assert state(folder, after_seconds=1000).kind == "running"


def test_before_the_first_step_a_run_is_given_more_time(folder: RunFolder) -> None:
    folder.metrics.unlink()
    held(folder, "node17", 1, started_seconds_ago=1000)
    assert state(folder).kind == "starting"
    assert state(folder, after_seconds=1000).kind == "stalled"


def test_a_resumed_run_is_starting_until_its_first_line(folder: RunFolder) -> None:
    held(folder, "node17", 1, started_seconds_ago=-1)
    assert state(folder, after_seconds=2).kind == "starting"


@pytest.mark.parametrize(("how", "kind"), [("failed", "failed"), ("stopped", "stopped")])
def test_the_run_s_own_word_counts(folder: RunFolder, how: str, kind: str) -> None:
    record = {**PLAN, "starts": [{"ended": {"how": how, "why": "the disk is full"}}]}
    found = state(folder, record)
    assert found.kind == kind
    assert found.detail.startswith("the disk is full")


def test_complete_is_a_model_and_the_last_step(folder: RunFolder) -> None:
    """Whether or not its checkpoints were removed since, to make room."""
    folder.model.mkdir()
    assert state(folder).kind == "stopped"
    folder.metrics.write_text('{"step": 10, "loss": 1.0}\n')
    assert state(folder).kind == "complete"


def test_a_run_that_writes_its_last_report_is_complete(folder: RunFolder) -> None:
    """The report that every run leaves called it running, since its process still held the lock."""
    folder.model.mkdir()
    folder.metrics.write_text('{"step": 10, "loss": 1.0}\n')
    record = {**PLAN, "starts": [{"ended": {"how": "complete", "why": ""}}]}
    with locked(folder.lock):
        assert state(folder, record).kind == "complete"
        assert state(folder, {**record, "starts": [*record["starts"], {}]}).kind in ("running", "starting")
