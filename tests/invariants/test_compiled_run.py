"""A run on the path that GPUs take, compiled and padded, from the command line to the release, beside a plain one."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Train, read_jsonl

TOLERANCE = 1e-4  # relative, in float32 without dropout

STEPS = 6
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "batch.max_tokens=512",
    "model.dropout=0.0",
    "optim.lr=1e-3",
    "data.val_fraction=0.2",
    "trainer.val_every_steps=4",  # the resumed half alone compiles it
    "samples.every_steps=3",
    "samples.max_new_tokens=12",
)
COMPILED = ("trainer.devices=2", "compute.compile=true", "compute.compile_backend=aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_a_compiled_run_equals_a_plain_one(train: Train, tmp_path: Path, strategy: str) -> None:
    """Sharded, padded, stopped half-way and gone on with, beside one process that does none of it."""
    prompts = tmp_path / "samples.jsonl"
    prompts.write_text('{"category": "facts", "instruction": "What is the boiling point?"}\n', encoding="utf-8")
    common = (*COMMON, f"samples.prompts={prompts}")
    plain = train("run.name=plain", *common)
    assert plain.returncode == 0, plain.stderr
    for stop_at_step, code in ((3, 143), (None, 0)):
        hook: dict[str, Any] = {"hook": "invariants.cpu_varlen:install", "hook_arguments": (stop_at_step,)}
        done = train("run.name=compiled", *common, *COMPILED, f"strategy={strategy}", **hook)
        assert done.returncode == code, done.stderr
    setups = [
        json.loads((tmp_path / "runs" / name / "run.json").read_text())["starts"] for name in ("plain", "compiled")
    ]
    plain_setup, *compiled_setups = [start["setup"] for starts in setups for start in starts]
    assert plain_setup["attention"] == "one example at a time"
    assert plain_setup["layers"].startswith("not compiled")
    for setup in compiled_setups:
        assert setup["attention"] == "all examples in one kernel"
        assert setup["layers"].startswith("compiled")

    lines = [read_jsonl(tmp_path / "runs" / name / "metrics.jsonl") for name in ("plain", "compiled")]
    for figure in ("loss", "grad_norm", "val_loss"):
        expected, found = ([(line["step"], line[figure]) for line in kind if figure in line] for kind in lines)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=TOLERANCE), figure
    for counted in ("tokens", "target_tokens", "examples"):
        expected, found = ([line[counted] for line in kind if "loss" in line] for kind in lines)
        assert found == expected, counted
    answers = [read_jsonl(tmp_path / "runs" / name / "samples.jsonl") for name in ("plain", "compiled")]
    assert answers[0] == answers[1]
