"""The project against sixty lines of plain PyTorch that pack nothing, shard nothing and know nothing of it."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Train, read_jsonl
from parity.independent_loop import OVERRIDES, reference_run, save_model

STEPS, LR = 50, 3e-3
TOLERANCE = 1e-4  # relative


@pytest.fixture
def records_file(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    """Records without molecules and the like: their splitting has tests of its own."""
    plain = [record for record in demo_records if "[START_" not in json.dumps(record)]
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(plain[::12][:40]), encoding="utf-8")
    return path


def test_losses_norms_and_rates_equal_those_of_an_independent_loop(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path
) -> None:
    model_folder = save_model(tmp_path / "model", tokenizer_folder)
    done = train(f"model.path={model_folder}", *OVERRIDES, f"trainer.max_steps={STEPS}", f"optim.lr={LR}")
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    reference = reference_run(
        model_folder, tokenizer_folder, records_file, lambda groups: torch.optim.AdamW(groups, lr=LR), STEPS
    )
    assert len(ours) == len(reference) == STEPS
    assert any(line["micro_batches"] > 1 for line in ours), "the run should have packed into several micro-batches"
    for line, expected in zip(ours, reference, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=TOLERANCE), f"{key} of step {line['step']}"
