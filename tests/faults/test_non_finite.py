"""A poisoned example at a known step and rank: each policy does what it says, and no checkpoint holds the damage."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from extension.checkpoint_tensors import all_tensors
from faults.kills import assert_equal_runs
from safetensors.torch import load_file

STEP, RANK, LAYER = 4, 1, 1  # the fifth step
POISONED = {"hook": "faults.crash:poison", "hook_arguments": (STEP, RANK, LAYER)}
MODULE = f"model.decoder.layers.{LAYER}.fc1"
TWO = ("strategy=fsdp", "trainer.devices=2", "trainer.max_steps=8", "checkpoint.every_steps=2", "model.dropout=0.3")


def lines(run: Path) -> list[dict[str, Any]]:
    return read_jsonl(run / "metrics.jsonl")


def assert_finite_checkpoints(run: Path) -> None:
    files = list(run.glob("checkpoints/step-*/*.safetensors"))
    assert files
    assert all(tensor.isfinite().all() for file in files for tensor in load_file(file).values())


def assert_recorded(run: Path, policy: str) -> None:
    (message,) = read_jsonl(run / "non_finite.jsonl")
    (found,) = message["found"]
    assert (message["step"], message["policy"]) == (STEP + 1, policy)
    assert (found["rank"], found["module"]) == (RANK, MODULE)
    assert found["examples"]
    assert set(found["examples"]) < set(message["examples"])
    assert len(message["examples"]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_stop(train: Train, tmp_path: Path, strategy: str) -> None:
    done = train(*TWO, f"strategy={strategy}", **POISONED)
    assert done.returncode == 1
    assert f"first in {MODULE} of rank {RANK}, with examples " in done.stderr
    run = tmp_path / "runs/test"
    assert_recorded(run, "stop")
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5]
    assert lines(run)[-1]["loss"] is None
    assert lines(run)[-1]["non_finite"] is True
    assert_finite_checkpoints(run)
    assert sorted(path.name for path in run.glob("checkpoints/step-*")) == ["step-00000002", "step-00000004"]


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_skip_is_the_run_without_that_update(train: Train, tmp_path: Path, fused: bool) -> None:
    how = (*TWO, "guard.on_non_finite=skip", f"optim.fused={fused}")
    assert train(*how, "run.name=skipped", **POISONED).returncode == 0
    left_out = {"hook": "faults.crash:leave_out_updates", "hook_arguments": ([STEP],)}
    assert train(*how, "run.name=left-out", **left_out).returncode == 0
    runs = tmp_path / "runs"
    skipped, other = (load_file(runs / name / "model/model.safetensors") for name in ("skipped", "left-out"))
    assert all(torch.equal(skipped[name], other[name]) for name in skipped)
    assert_recorded(runs / "skipped", "skip")
    assert [line["step"] for line in lines(runs / "skipped")] == list(range(1, 9))
    assert_finite_checkpoints(runs / "skipped")


@pytest.mark.slow
def test_the_limit_of_skips(train: Train, tmp_path: Path) -> None:
    again = {"hook": "faults.crash:poison_from", "hook_arguments": (2,)}
    done = train("trainer.max_steps=8", "guard.on_non_finite=skip", "guard.max_skips=2", **again)
    assert done.returncode == 1
    assert [line["step"] for line in lines(tmp_path / "runs/test") if line.get("non_finite")] == [3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("read_every", [1, 8])
def test_rollback_goes_on_from_the_last_checkpoint(train: Train, tmp_path: Path, read_every: int) -> None:
    """As a run of which the steps since the checkpoint were left out, however late the step is seen."""
    how = (*TWO, "guard.on_non_finite=rollback", "checkpoint.every_steps=3", "checkpoint.keep_last=9")
    done = train(*how, f"trainer.read_metrics_every_steps={read_every}", "run.name=back", **POISONED)
    assert done.returncode == 0, done.stderr
    # Steps 4 and 5 count for nothing: the updates after the checkpoint of step 3.
    left_out = {"hook": "faults.crash:leave_out_updates", "hook_arguments": ([3, 4],)}
    assert train(*how, "run.name=left-out", **left_out).returncode == 0
    runs = tmp_path / "runs"
    back, other = (load_file(runs / name / "model/model.safetensors") for name in ("back", "left-out"))
    assert all(torch.equal(back[name], other[name]) for name in back)
    assert_recorded(runs / "back", "rollback")
    assert lines(runs / "back")[STEP]["rolled_back_to"] == 3
    assert [line["step"] for line in lines(runs / "back")] == list(range(1, 9))
    assert_finite_checkpoints(runs / "back")


@pytest.mark.slow
def test_rollback_under_fsdp2_drops_what_it_had_gathered(train: Train, tmp_path: Path) -> None:
    """Layers that stay gathered after a forward without backward went on with the weights of before the rollback."""
    strategy = ("strategy=fsdp2", "strategy.reshard_after_forward=false")
    how = (*TWO, *strategy, "guard.on_non_finite=rollback", "checkpoint.every_steps=3")
    assert train(*how, "run.name=back", **POISONED).returncode == 0
    left_out = {"hook": "faults.crash:leave_out_updates", "hook_arguments": ([3, 4],)}
    assert train(*how, "run.name=left-out", **left_out).returncode == 0
    runs = tmp_path / "runs"
    back, other = (load_file(runs / name / "model/model.safetensors") for name in ("back", "left-out"))
    assert all(torch.equal(back[name], other[name]) for name in back)


@pytest.mark.slow
def test_rollback_and_kill_end_in_the_same_bits(train: Train, tmp_path: Path) -> None:
    how = (*TWO, "guard.on_non_finite=rollback")
    assert train(*how, "run.name=straight", **POISONED).returncode == 0
    ends = {"hook": "faults.crash:poison_and_terminate", "hook_arguments": (STEP, RANK, LAYER, 7)}
    stopped = train(*how, "run.name=again", **ends)
    assert stopped.returncode == 143, stopped.stderr
    assert train(*how, "run.name=again", **POISONED).returncode == 0
    assert_equal_runs(tmp_path / "runs/straight", tmp_path / "runs/again")


@pytest.mark.slow
def test_a_scaler_that_overflows_for_ever_is_stopped(train: Train, tmp_path: Path) -> None:
    """With 16-mixed a poisoned model went on to the end, each update left out."""
    poisoned = {"hook": "faults.crash:poison_from", "hook_arguments": (2,)}
    done = train("precision=16-mixed", "trainer.max_steps=8", "guard.max_skips=3", **poisoned)
    assert done.returncode == 1
    assert "gradients overflowed in 4 consecutive steps" in done.stderr
    assert "loss scale is down to" in done.stderr
    assert json.loads((tmp_path / "runs/test/metrics.jsonl").read_text().splitlines()[-1])["skipped"] is True


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_overflow_in_one_ranks_shards_leaves_out_the_update_of_all(
    train: Train, tmp_path: Path, strategy: str, rank: int
) -> None:
    """Else one half of a model would be updated and the other not, and their loss scales would part."""
    steps = ("trainer.max_steps=3", "checkpoint.every_steps=1", "checkpoint.keep_last=9", "batch.examples=2")
    hook = {"hook": "faults.crash:overflow", "hook_arguments": (2, rank)}
    done = train(f"strategy={strategy}", "trainer.devices=2", "precision=16-mixed", *steps, **hook)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/test"
    assert [line["skipped"] for line in lines(run)] == [False, False, True]
    before, after = (all_tensors(run / f"checkpoints/step-{step:08d}") for step in (2, 3))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((run / "checkpoints/step-00000003/trainer.json").read_text())["precision"]["scale"] == 32768.0
