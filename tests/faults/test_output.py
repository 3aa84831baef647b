"""What a run prints to may go away: a pager, a terminal, a disk. The run goes on, and ends with its own code."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import LIMIT_SECONDS, command
from forked import Forked

RunWith = Callable[..., int]


@pytest.fixture
def run_with(tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str) -> RunWith:
    """Runs ``train.py`` with other outputs, and returns its exit code."""

    def run(stdout: int, stderr: int, *overrides: str, **how: Any) -> int:
        line = command(tmp_path, tokenizer_folder, records_file, *overrides)
        forked = Forked(server, line[1:], cwd=tmp_path, env=os.environ, stdout=stdout, stderr=stderr, **how)
        return forked.wait(LIMIT_SECONDS)

    return run


@contextmanager
def closed_pipe() -> Iterator[int]:
    """As of ``| head`` that has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    with open("/dev/full", "w") as file:  # noqa: PTH123 - a device
        yield file.fileno()


def last_start(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "runs/test/run.json").read_text(encoding="utf-8"))["starts"][-1]


OUTPUTS = {"a closed pipe": (closed_pipe, "Broken pipe"), "a full disk": (full_disk, "No space left on device")}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_lost_output_ends_no_run(run_with: RunWith, tmp_path: Path, name: str) -> None:
    """A closed pipe ended it at the next line of progress with 1, unsaved and without a word."""
    output, reason = OUTPUTS[name]
    with output() as lost, (tmp_path / "errors").open("w+", encoding="utf-8") as errors:
        assert run_with(lost, errors.fileno()) == 0
        errors.seek(0)
        assert f"warning: standard output: {reason}; the command continues without it" in errors.read()
    assert last_start(tmp_path)["ended"]["how"] == "complete"
    assert last_start(tmp_path)["lost_output"] == [f"standard output: {reason}"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_run_that_can_say_nothing_records_it(run_with: RunWith, tmp_path: Path, name: str) -> None:
    output, reason = OUTPUTS[name]
    with output() as lost:
        assert run_with(lost, lost) == 0
    assert f"standard output: {reason}" in last_start(tmp_path)["lost_output"]


def test_a_run_whose_reader_got_the_same_ctrl_c_says_how_it_stopped(run_with: RunWith, tmp_path: Path) -> None:
    """``train.py 2>&1 | tee log`` and Ctrl-C: saved, but exit code 1, and recorded as failed."""
    hook = {"hook": "faults.crash:signal_rank_at_step", "hook_arguments": (2, int(signal.SIGINT), 0)}
    with closed_pipe() as pipe:
        assert run_with(pipe, pipe, **hook) == 143
    ended = last_start(tmp_path)["ended"]
    assert (ended["how"], ended["why"][:18]) == ("stopped", "stopped after step")
    assert (tmp_path / "runs/test/checkpoints/latest").exists()


def test_an_error_is_no_other_error_without_a_reader(run_with: RunWith) -> None:
    with closed_pipe() as pipe:
        assert run_with(pipe, pipe, "batch.examples=0") == 2


@pytest.mark.slow
@pytest.mark.parametrize("ignores_hangup", [True, False])
def test_a_terminal_that_closes(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, *, ignores_hangup: bool
) -> None:
    """Under nohup the run goes on to its end; otherwise it saves and stops. It died, unsaved, in both cases."""
    steps = ("trainer.max_steps=300", "trainer.max_epochs=100", "checkpoint.every_steps=300")
    line = command(tmp_path, tokenizer_folder, records_file, *steps)
    wrapped = ["nohup", *line] if ignores_hangup else line
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(wrapped[0], wrapped)
    metrics = tmp_path / "runs/test/metrics.jsonl"

    def read() -> None:
        with suppress(OSError):
            while not (metrics.exists() and metrics.stat().st_size) and os.read(terminal, 4096):
                pass

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    how = last_start(tmp_path)["ended"]["how"]
    assert (code, how) == ((0, "complete") if ignores_hangup else (143, "stopped"))
    assert (tmp_path / "runs/test/checkpoints/latest").exists()


PRINTING = [sys.executable, "-m", "galpaca", "runs"]


def test_a_command_that_only_prints_ends_when_nobody_reads(run: Path) -> None:
    """With the code of a program that SIGPIPE has ended, as a shell expects, instead of a bare 1."""
    with closed_pipe() as pipe:
        done = subprocess.run([*PRINTING, str(run)], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_command_that_only_prints_names_the_output_that_is_full(run: Path) -> None:
    with full_disk() as disk:
        done = subprocess.run([*PRINTING, str(run)], stdout=disk, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "standard output: cannot write: No space left on device" in done.stderr


def test_a_full_disk_under_the_figures_names_file_and_disk(
    run_with: RunWith, tmp_path: Path, records_file: Path
) -> None:
    """``cannot write: No space left on device`` had no file in it: a log in a full home looked like the run's disk."""
    metrics = tmp_path / "runs/test/metrics.jsonl"
    hook = {"hook": "faults.crash:no_room_in", "hook_arguments": (str(metrics),)}
    with (tmp_path / "errors").open("w+", encoding="utf-8") as errors:
        assert run_with(errors.fileno(), errors.fileno(), **hook) == 1
        errors.seek(0)
        said = errors.read()
    assert f"error: {metrics}: cannot write: No space left on device\n  why: the disk at /" in said
