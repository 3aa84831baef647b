"""SIGTERM before there is anything to save: one line, exit code 143, whatever the process was at."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Train, command
from faults.starts import Starts, WaitingStart

# ``make endurance`` takes a hundred, until the first step. A signal that comes in the midst of an import is sent again
# every 20 ms until that is over, so that each of the later ones is heard all through torch and what builds on it.
IMPORTING = (0.7, 1.5, 3.0)  # seconds of the processor: Hydra, torch, Lightning


@pytest.mark.slow
@pytest.mark.parametrize("seconds", IMPORTING)
def test_a_start_that_is_stopped_ends_in_one_line(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, seconds: float
) -> None:
    """While torch was imported it ended once with 134: the exception came out of C++. Others were lost in callbacks."""
    Starts(tmp_path, tokenizer_folder, records_file).stopped_after(seconds).check()


@pytest.fixture
def waiting(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> Iterator[WaitingStart]:
    with WaitingStart(command(tmp_path, tokenizer_folder, records_file, *WaitingStart.OVERRIDES), tmp_path) as start:
        yield start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2])
def test_a_start_that_waits_for_a_rank_is_ended_by_any_signal(
    waiting: WaitingStart, tmp_path: Path, number: signal.Signals
) -> None:
    """Python's handlers do not run in the rendezvous: only SIGKILL ended it."""
    assert waiting.stopped_by(number) == 143
    assert waiting.errors().strip().splitlines()[-1] == f"stopped by {number.name}"
    assert waiting.leaves_nobody()
    [start] = json.loads((tmp_path / "runs/test/run.json").read_text(encoding="utf-8"))["starts"]
    assert start["ended"]["how"] == "stopped"


@pytest.mark.slow
def test_a_signal_to_another_rank_alone_ends_the_start(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path
) -> None:
    """Rank 1 ended with 0, as it does where rank 0 was signalled as well, and rank 0 went on waiting for it."""
    line = command(tmp_path, tokenizer_folder, records_file, *WaitingStart.OVERRIDES)
    with WaitingStart(line, tmp_path, stands_still=False) as start:
        start.signal_other(signal.SIGTERM)
        assert start.process.wait(15) == 143
        assert start.leaves_nobody()


END_WITH_LAUNCHER = """
import os, signal, sys, time
from galpaca.app.cluster.ranks import end_with_launcher

signal.signal(signal.SIGTERM, lambda *_: (print("asked to save", flush=True), os._exit(0)))
end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"TORCHELASTIC_RUN_ID": "x"}, "asked to save\n"),  # so that it saves
        ({"GALPACA_LAUNCHER": "1"}, ""),  # nobody would save for it
    ],
    ids=["torchrun", "Lightning"],
)
def test_a_rank_ends_with_its_launcher(marks: dict[str, str], said: str) -> None:
    """Ranks of a torchrun that SIGUSR1 had ended waited for each other, and held the port of the next start."""
    launch = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
    line = [sys.executable, "-c", launch, END_WITH_LAUNCHER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ, **marks}) as launcher:
        assert launcher.stdout
        assert launcher.stdout.readline() == "ready\n"
        begin = time.monotonic()
        launcher.kill()
        assert launcher.stdout.read() == said  # ends when the rank does
        assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_rank_that_never_comes_is_a_hang(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> None:
    """The watch began with the first step, and a node that fails to start cost the whole timeout of the rendezvous."""
    line = command(tmp_path, tokenizer_folder, records_file, *WaitingStart.OVERRIDES, "hang.minutes=0.2")
    with WaitingStart(line, tmp_path) as start:
        assert start.process.wait(120) == 75
        assert "no first step: rank 0 on" in start.errors()
        assert "has been waiting for the other ranks for 6" in start.errors()
        assert start.leaves_nobody()
    assert list((tmp_path / "runs/test/stacks").glob("*/rank-00000.txt"))


@pytest.mark.parametrize(
    "stray", [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"WORLD_SIZE": "2"}, {"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}]
)
def test_a_stray_variable_of_a_launcher_is_refused_by_name(train: Train, tmp_path: Path, stray: dict[str, str]) -> None:
    """``RANK=1`` ended the command with 2 and not one character; others waited for ranks that nobody had started."""
    done = train(env=stray, forked=True)
    assert done.returncode == 2
    assert f"unset {next(iter(stray))}" in done.stderr
    assert not (tmp_path / "runs").exists()
