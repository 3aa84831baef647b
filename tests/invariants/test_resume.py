"""Stopped by a signal or killed, then started again: the same bits as a run that was never stopped."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Started, Train, command, completed
from families import FAMILIES_AT_LENGTH, PLAIN_OPT, Tiny
from faults.kills import STRATEGIES, assert_equal_runs
from forked import Forked
from safetensors.torch import load_file

from galpaca.runs.folder import RunFolder

STEPS, STOPPED_IN = 12, 7  # the eighth step, between two checkpoints
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "batch.max_tokens=256",
    "data.val_fraction=0.2",
    "trainer.val_every_steps=2",
    "checkpoint.every_steps=4",
)


def wait_for(condition: Callable[[], bool], process: Forked, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def num_steps(metrics: Path) -> int:
    return len([line for line in metrics.read_text().splitlines() if "grad_norm" in line]) if metrics.exists() else 0


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_interrupted_equals_straight(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str, strategy: str, tiny: Tiny
) -> None:
    """With dropout on: weights equal to the bit, every step and validation in metrics.jsonl once."""
    overrides = (*tiny.overrides, *COMMON, *tiny.random, *STRATEGIES[strategy])
    straight = train("run.name=straight", *overrides)
    assert straight.returncode == 0, straight.stderr

    for stop in (terminate, kill):
        name = stop.__name__
        folder = tmp_path / "runs" / name
        line = command(tmp_path, tokenizer_folder, records_file, f"run.name={name}", *overrides)
        gate = tmp_path / f"gate-{name}"
        gate.mkdir()
        hook: dict[str, Any] = {"hook": "faults.crash:wait_in_step", "hook_arguments": (STOPPED_IN, str(gate))}
        process = Started(server, line, tmp_path, **hook)
        wait_for((gate / "waiting").exists, process)
        stop(process, folder, gate)
        again = train(f"run.name={name}", *overrides)
        assert again.returncode == 0, again.stderr
        assert_equal_runs(tmp_path / "runs" / "straight", folder)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "fsdp", "fsdp2"])
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_moments_change_their_place_in_a_run(train: Train, tmp_path: Path, strategy: str, moments: str) -> None:
    """To the host, killed, and back to the device: the bits of a run whose moments never moved."""
    how = (*COMMON, *PLAIN_OPT.random, *STRATEGIES[strategy], f"optim.moments_dtype={moments}", "optim.fused=false")
    assert train("run.name=straight", *how).returncode == 0
    hook = {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (STOPPED_IN, signal.SIGKILL)}
    assert train("run.name=moved", *how, "optim.moments_on=host", **hook).returncode == -signal.SIGKILL
    again = train("run.name=moved", *how, "optim.moments_on=device")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "moved")
    assert train("run.name=on-host", *how, "optim.moments_on=host").returncode == 0
    assert_equal_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "on-host")


def terminate(process: Started, folder: Path, gate: Path) -> None:
    """SIGTERM to rank 0 alone: the others learn of it at the end of the step."""
    process.send_signal(signal.SIGTERM)
    (gate / "go").touch()
    done = completed(process, 200)
    assert done.returncode == 143, done.stderr
    assert "saved" in done.stderr
    last = RunFolder(folder.parent, folder.name).last_saved_step()
    assert last == num_steps(folder / "metrics.jsonl"), "the step under way when the signal came is saved"


def kill(process: Started, folder: Path, gate: Path) -> None:
    process.kill_group()


def test_ctrl_c_twice_ends_all_ranks_at_once(train: Train, tmp_path: Path) -> None:
    """Rank 0 waited for the others, which waited for rank 0 in the next collective, for half an hour."""
    hook = {"hook": "faults.crash:interrupt_twice_at_step", "hook_arguments": (3,)}
    done = train(*COMMON, *PLAIN_OPT.random, *STRATEGIES["ddp"], timeout=200, **hook)
    assert done.returncode == 143, done.stderr
    assert "stopped by SIGINT" in done.stderr
    again = train(*COMMON, *PLAIN_OPT.random, *STRATEGIES["ddp"])
    assert again.returncode == 0, again.stderr


def test_a_finished_run_is_left_alone(train: Train, tmp_path: Path) -> None:
    first = train()
    assert first.returncode == 0, first.stderr
    model = tmp_path / "runs" / "test" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    again = train()
    assert again.returncode == 0
    assert "complete" in again.stdout
    assert model.stat().st_mtime_ns == before


def test_a_run_killed_before_its_release_releases_when_started_again(train: Train, tmp_path: Path) -> None:
    """All steps done and saved, but no model folder: nothing is trained again, and the model appears."""
    first = train()
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "test"
    weights = load_file(folder / "model" / "model.safetensors")
    (folder / "model").rename(folder / "kept")
    again = train()
    assert again.returncode == 0, again.stderr
    released = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(weights[name], released[name]) for name in weights)
    assert num_steps(folder / "metrics.jsonl") == 4
