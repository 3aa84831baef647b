"""Dropout is on in every step, and changes the loss: a run without it would look like any other."""

from pathlib import Path

import pytest
from conftest import Train, read_jsonl

COMMON = ("trainer.max_steps=3", "data.val_fraction=0.2", "trainer.val_every_steps=1")


@pytest.mark.parametrize("samples", [False, True])
def test_dropout_is_on_after_validations_and_samples(train: Train, tmp_path: Path, samples: bool) -> None:
    common: tuple[str, ...] = COMMON
    if samples:
        prompts = tmp_path / "samples.jsonl"
        prompts.write_text('{"category": "facts", "instruction": "What boils?"}\n', encoding="utf-8")
        common += (f"samples.prompts={prompts}", "samples.every_steps=1", "samples.max_new_tokens=2")
        common += ("strategy=fsdp", "trainer.devices=2")
    modes = tmp_path / "modes"
    hook = {"hook": "faults.crash:note_modes", "hook_arguments": (str(modes),)}
    on = train("run.name=on", "model.dropout=0.5", *common, **hook)
    off = train("run.name=off", "model.dropout=0.0", *common)
    assert (on.returncode, off.returncode) == (0, 0), on.stderr + off.stderr

    assert set(modes.read_text().split()) == {"0"}, "modules that would leave dropout out"
    first = [read_jsonl(tmp_path / "runs" / name / "metrics.jsonl")[0]["loss"] for name in ("on", "off")]
    assert first[0] != pytest.approx(first[1], rel=1e-5)
