"""A run that goes on with another number of processes, and another strategy, is the same run."""

import json
import signal
from pathlib import Path

import pytest
from conftest import Train, read_jsonl
from families import FAMILIES_AT_LENGTH, Tiny

TOLERANCE = 1e-4  # relative, in float32 without dropout

STEPS = 20
COMMON = (
    *("model.dropout=0.0", f"trainer.max_steps={STEPS}", "trainer.max_epochs=100", "optim.lr=1e-3"),
    # Validations are due at steps after which the run is stopped.
    *("data.val_fraction=0.2", "trainer.val_every_steps=2"),
)
# Who goes on, and after which step it is requested to stop: it makes one more, in which the ranks agree.
STAGES = (
    (("strategy=single",), 5),
    (("strategy=fsdp", "trainer.devices=2"), 9),
    (("strategy=ddp", "trainer.devices=4"), 13),
    (("strategy=fsdp", "trainer.devices=4"), 16),
    (("strategy=single",), None),
)
OF_THE_PLAN = ("step", "epoch", "examples", "tokens", "target_tokens", "lr")


@pytest.mark.slow
def test_from_one_to_two_to_four_to_one(train: Train, tmp_path: Path) -> None:
    """Every step has the examples that it has on one process, and its loss within rounding."""
    straight = train("run.name=straight", *COMMON)
    assert straight.returncode == 0, straight.stderr
    for overrides, stop in STAGES:
        hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (stop,)} if stop else {}
        done = train("run.name=elastic", *COMMON, *overrides, **hook)
        assert done.returncode == (143 if stop else 0), done.stderr
    lines = {name: read_jsonl(tmp_path / "runs" / name / "metrics.jsonl") for name in ("straight", "elastic")}
    one, other = ([line for line in lines[name] if "loss" in line] for name in lines)
    val_one, val_other = ([line for line in lines[name] if "val_loss" in line] for name in lines)
    assert [line["step"] for line in val_other] == [line["step"] for line in val_one] == list(range(2, STEPS + 1, 2))
    assert [line["val_loss"] for line in val_other] == pytest.approx([v["val_loss"] for v in val_one], rel=TOLERANCE)
    assert [[line[key] for key in OF_THE_PLAN] for line in other] == [
        [line[key] for key in OF_THE_PLAN] for line in one
    ]
    assert [line["loss"] for line in other] == pytest.approx([line["loss"] for line in one], rel=TOLERANCE)
    assert [line["grad_norm"] for line in other] == pytest.approx([line["grad_norm"] for line in one], rel=TOLERANCE)
    record = json.loads((tmp_path / "runs" / "elastic" / "run.json").read_text(encoding="utf-8"))
    assert [start["step"] for start in record["starts"]] == [0, *(_saved(stop) for _, stop in STAGES if stop)]


def _saved(stop: int) -> int:
    """Where a run stops that gets a signal as the figures of ``stop`` are written: in the validation of that step, if
    it has one, else after the next.
    """
    return stop if stop % 2 == 0 else stop + 1


SAVED = ("checkpoint.every_steps=1", "checkpoint.asynchronous=false")
# Each makes a step, is killed, and hands over to the next.
ROUND_TRIP = (
    ("strategy=fsdp", "trainer.devices=2"),
    ("strategy=fsdp2", "trainer.devices=2"),
    ("strategy=ddp", "trainer.devices=2"),
    ("strategy=single",),
    ("strategy=ddp", "trainer.devices=2"),
    ("strategy=fsdp2", "trainer.devices=2"),
    ("strategy=fsdp", "trainer.devices=2"),
    ("strategy=fsdp2", "trainer.devices=4"),
)


@pytest.mark.slow
@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
def test_every_strategy_goes_on_with_every_others_checkpoint(train: Train, tmp_path: Path, tiny: Tiny) -> None:
    """There and back again, a step each: the losses of one process within a millionth."""
    num_steps = len(ROUND_TRIP)
    common = (*tiny.overrides, "model.dropout=0.0", f"trainer.max_steps={num_steps}", "trainer.max_epochs=100")
    assert train("run.name=straight", *common).returncode == 0
    for step, overrides in enumerate(ROUND_TRIP, 1):
        last = step == num_steps
        hook = {} if last else {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (step, signal.SIGKILL)}
        done = train("run.name=round", *common, *SAVED, *overrides, **hook)
        assert done.returncode == (0 if last else -signal.SIGKILL), done.stderr
    one, other = (
        [line["loss"] for line in read_jsonl(tmp_path / "runs" / name / "metrics.jsonl") if "loss" in line]
        for name in ("straight", "round")
    )
    assert len(other) == num_steps
    assert other == pytest.approx(one, rel=1e-6)
