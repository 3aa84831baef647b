"""torchrun passes signals on to its processes: the run is saved, and gone on from."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster.forking import make_environment
from conftest import command, read_jsonl

# Of itself it dies of SIGUSR1, and its processes with it.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
HANDLES = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"


def earlier(line: list[str], tmp_path: Path, server: str | None = None) -> "subprocess.Popen[str]":
    """torchrun with a run's script.

    Args:
        server: forks what torchrun starts, which is then spared the imports.
    """
    python = ["--no-python", str(make_environment(tmp_path / "forking", server) / "bin" / "python")] if server else []
    return subprocess.Popen(
        [*TORCHRUN, HANDLES, *python, *line[1:]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "are_forked"), [(signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_a_signal_to_torchrun_saves(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str, number: signal.Signals, are_forked: bool
) -> None:
    how = ("strategy=fsdp", "trainer.devices=2", "trainer.max_steps=3000", "trainer.max_epochs=9999")
    line = command(tmp_path, tokenizer_folder, records_file, *how, "checkpoint.every_steps=5000")
    process = earlier(line, tmp_path, server if are_forked else None)
    metrics = tmp_path / "runs/test/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    message = process.communicate(timeout=200)[0]
    assert "which is saved; the same command goes on from there" in message
    (checkpoint,) = (tmp_path / "runs/test/checkpoints").glob("step-*")
    assert int(checkpoint.name.removeprefix("step-")) == read_jsonl(metrics)[-1]["step"]


@pytest.mark.slow
def test_another_number_of_processes_is_reported(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str
) -> None:
    line = command(tmp_path, tokenizer_folder, records_file, "strategy=fsdp", "trainer.devices=3")
    message = earlier(line, tmp_path, server).communicate(timeout=200)[0]
    assert "torchrun started 2 processes, 2 per node, but the run needs 3 processes on 1 node" in message
    assert "torchrun --nnodes=1 --nproc-per-node=3" in message


# Every process finds the same mistake, and the one that is to tell it is late.
LATE = """
import sys, time
from galpaca.app.entrypoint import run_command
from galpaca.app.cluster.ranks import global_rank
from galpaca.errors import InputError

def command():
    if global_rank() == 0:
        time.sleep(2)
    raise InputError("the mistake of all")

sys.exit(run_command(command))
"""


@pytest.mark.slow
def test_a_rank_that_is_early_lets_rank_0_tell(tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    script.write_text(LATE)
    message = subprocess.run([*TORCHRUN, str(script)], capture_output=True, text=True, timeout=200, check=False).stderr
    assert "error: the mistake of all" in message
