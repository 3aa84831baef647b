"""The trainer against ``examples/flat_loop.py``, which packs nothing, shards nothing and imports nothing of it."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DEMO, REPOSITORY, Train, read_jsonl
from families import FAMILIES_AT_LENGTH, Tiny
from parity.flat_run import OVERRIDES, RECIPE, flat_run, save_model

from examples.flat_loop import Recipe
from galpaca.app.config.composition import compose
from galpaca.training.optimizers.adamw import AdamW

FLAT_LOOP = REPOSITORY / "examples" / "flat_loop.py"
STEPS = 50

# Relative, over all steps. In float64 nothing but another order of sums is left: found 1e-14, and 2e-6 in float32.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture
def records_file(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    """An epoch of them ends with a step of five; some have an input, some a molecule, and some are truncated."""
    path = tmp_path / "records.json"
    path.write_text(json.dumps(demo_records[::12][:37]), encoding="utf-8")
    return path


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    return save_model(tmp_path / "model", tokenizer_folder)


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("32-true", torch.float32)])
def test_losses_norms_and_rates_equal_those_of_the_flat_loop(
    train: Train,
    tmp_path: Path,
    tokenizer_folder: Path,
    records_file: Path,
    tiny: Tiny,
    precision: str,
    dtype: torch.dtype,
) -> None:
    model_folder = save_model(tmp_path / "model", tokenizer_folder, tiny)
    done = train(
        f"model.path={model_folder}",
        *OVERRIDES,
        f"precision={precision}",
        f"trainer.max_steps={STEPS}",
        f"optim.lr={RECIPE.lr}",
    )
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    flat = flat_run(model_folder, tokenizer_folder, records_file, STEPS, dtype=dtype)
    assert len(ours) == len(flat) == STEPS
    assert any(line["micro_batches"] != 1 for line in ours), "the run should have packed into several micro-batches"
    for line, expected in zip(ours, flat, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=TOLERANCES[dtype]), f"{key} of step {line['step']}"


def test_the_flat_loop_imports_nothing_of_the_project_and_fits_a_page_or_two() -> None:
    source = FLAT_LOOP.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "torch", "transformers"}
    assert len(source.splitlines()) < 150


def test_its_recipe_is_the_published_one() -> None:
    config, _ = compose(["+experiment=galpaca67b"])
    assert isinstance(config.optim.factory, AdamW)
    ours = Recipe(
        max_length=config.data.max_length,
        examples_per_step=config.batch.examples,
        num_epochs=config.trainer.max_epochs,
        lr=config.optim.lr,
        weight_decay=config.optim.factory.weight_decay,
        warmup_ratio=config.optim.warmup_ratio,
        clip_norm=config.optim.clip_norm or 0.0,
        seed=config.seed,
    )
    assert ours == Recipe()


def test_it_runs_as_its_header_says(tmp_path: Path, tokenizer_folder: Path, model_folder: Path) -> None:
    shutil.copytree(tokenizer_folder, model_folder, dirs_exist_ok=True)
    command = [sys.executable, str(FLAT_LOOP), str(model_folder), str(DEMO / "records.json"), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"1 loss \d\.\d+ grad_norm \d\.\d+ lr 0\n", done.stdout)
