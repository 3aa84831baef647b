"""Runs of adapters: the same on one process and two, in the same bits after a kill, and nothing of the base moves."""

import hashlib
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Train, read_jsonl
from extension.checkpoint_tensors import all_tensors
from families import FAMILIES_AT_LENGTH, Tiny
from faults.kills import assert_equal_runs
from safetensors.torch import load_file

from galpaca.model.folder_tensors import FolderTensors
from galpaca.model.tuning.lora import Lora
from galpaca.runs.checkpoints import read_manifest
from galpaca.runs.folder import RunFolder

STEPS = 8
TUNINGS = ("lora", "qlora")
STRATEGIES = {
    "single": ("strategy=single",),
    "ddp": ("strategy=ddp", "trainer.devices=2"),
    "fsdp2": ("strategy=fsdp2", "trainer.devices=2"),
}
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "batch.max_tokens=256",
    "data.max_length=64",
    "optim.lr=3e-3",
    "checkpoint.asynchronous=false",
    "checkpoint.every_steps=2",
)
EXACT = ("model.dropout=0", "tuning.dropout=0")
RANDOM = ("tuning.dropout=0.3",)
BaseModels = Callable[[Tiny], Path]
LOSS_TOLERANCE = 1e-6  # relative, in float32


def checksum(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def losses(tmp_path: Path, name: str) -> list[float]:
    lines = read_jsonl(tmp_path / "runs" / name / "metrics.jsonl")
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_one_process_and_two_compute_the_same_and_keep_only_adapters(
    train: Train, tmp_path: Path, base_model_of: BaseModels, tuning: str, tiny: Tiny
) -> None:
    base_model = base_model_of(tiny)
    before = checksum(base_model)
    for name, strategy in STRATEGIES.items():
        done = train(f"run.name={name}", f"model.path={base_model}", f"tuning={tuning}", *COMMON, *EXACT, *strategy)
        assert done.returncode == 0, done.stderr
    for name in STRATEGIES:
        assert losses(tmp_path, name) == pytest.approx(losses(tmp_path, "single"), rel=LOSS_TOLERANCE)
    assert checksum(base_model) == before
    lora = Lora().on(tiny.family)
    shapes = lora.trained_shapes(lora.shapes(FolderTensors(base_model, tiny.family, tied_head=True).shapes))
    assert len(shapes) == 2 * len(tiny.family.linear_layers) * 2  # A and B of all layers in each of two blocks
    for name in STRATEGIES:
        checkpoint = RunFolder(tmp_path / "runs", name).checkpoint(STEPS)
        assert {key: tuple(shape) for key, shape in read_manifest(checkpoint).parameters.items()} == shapes
        saved = all_tensors(checkpoint)
        assert saved.keys() == {f"{kind}/{key}" for kind in ("weight", "exp_avg", "exp_avg_sq") for key in shapes}
        for key in shapes:
            assert saved[f"exp_avg_sq/{key}"].count_nonzero() > 0, f"{key} had no gradient"


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
def test_killed_and_resumed_equals_straight(
    train: Train, tmp_path: Path, base_model_of: BaseModels, tuning: str, strategy: str, tiny: Tiny
) -> None:
    """With dropout of the model and of the adapters."""
    how = (f"model.path={base_model_of(tiny)}", f"tuning={tuning}", *STRATEGIES[strategy])
    chosen = (*how, *COMMON, *RANDOM, *tiny.random)
    assert train("run.name=straight", *chosen).returncode == 0
    hook = {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (5, signal.SIGKILL)}
    assert train("run.name=killed", *chosen, **hook).returncode == -signal.SIGKILL
    assert RunFolder(tmp_path / "runs", "killed").last_saved_step() == 4
    again = train("run.name=killed", *chosen)
    assert again.returncode == 0, again.stderr
    assert_equal_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "killed")
    ours, theirs = (
        load_file(tmp_path / "runs" / name / "adapter" / "adapter_model.safetensors") for name in ("straight", "killed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
def test_two_processes_go_on_as_one(train: Train, tmp_path: Path, base_model: Path, tuning: str) -> None:
    chosen = (f"model.path={base_model}", f"tuning={tuning}", *COMMON, *EXACT)
    assert train("run.name=straight", *chosen).returncode == 0
    hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (3,)}
    assert train("run.name=elastic", *chosen, *STRATEGIES["ddp"], **hook).returncode == 143
    again = train("run.name=elastic", *chosen)
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path, "elastic") == pytest.approx(losses(tmp_path, "straight"), rel=LOSS_TOLERANCE)


def test_a_checkpoint_takes_twelve_bytes_for_each_trained_value(train: Train, tmp_path: Path, base_model: Path) -> None:
    """And next to nothing else, once adapters are not as small as the JSON beside them."""
    done = train(
        f"model.path={base_model}", "tuning=lora", "tuning.rank=64", "trainer.max_steps=1", "data.max_length=64"
    )
    assert done.returncode == 0, done.stderr
    checkpoint = RunFolder(tmp_path / "runs", "test").checkpoint(1)
    num_values = sum(math.prod(shape) for shape in read_manifest(checkpoint).parameters.values())
    found = sum(file.stat().st_size for file in checkpoint.iterdir())
    assert 12 * num_values < found < 1.02 * 12 * num_values


def test_two_runs_of_one_seed_are_one_and_of_two_seeds_are_two(train: Train, tmp_path: Path, base_model: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        chosen = (f"run.name={name}", f"model.path={base_model}", "tuning=lora", f"seed={seed}", "trainer.max_steps=2")
        assert train(*chosen, "data.max_length=64").returncode == 0
    assert_equal_runs(tmp_path / "runs" / "one", tmp_path / "runs" / "same")
    one, other = (
        load_file(tmp_path / "runs" / name / "adapter" / "adapter_model.safetensors") for name in ("one", "other")
    )
    assert not any(torch.equal(one[name], other[name]) for name in one)


COMPUTED = {
    "recomputed": ("compute.activation_checkpointing=full",),
    "partly recomputed": ("compute.activation_checkpointing=selective",),
    "compiled": ("compute.compile=true", "compute.compile_backend=aot_eager"),
    "in smaller micro-batches": ("batch.max_tokens=64",),
}


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
def test_however_it_is_computed_it_is_the_same(train: Train, tmp_path: Path, base_model: Path, tuning: str) -> None:
    chosen = (f"model.path={base_model}", f"tuning={tuning}", *COMMON, *EXACT)
    assert train("run.name=plain", *chosen).returncode == 0
    for number, (how, overrides) in enumerate(COMPUTED.items()):
        done = train(f"run.name=run{number}", *chosen, *overrides)
        assert done.returncode == 0, done.stderr
        assert losses(tmp_path, f"run{number}") == pytest.approx(losses(tmp_path, "plain"), rel=LOSS_TOLERANCE), how


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_half_precision_trains_adapters_in_float32(
    train: Train, tmp_path: Path, base_model: Path, tuning: str, precision: str
) -> None:
    """With the loss scaler where there is one, validation and samples; the base in 16 bits."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"instruction": "Name a gas."}\n', encoding="utf-8")
    chosen = (f"model.path={base_model}", f"tuning={tuning}", f"precision={precision}", *COMMON, *EXACT)
    watched = ("data.val_fraction=0.1", f"samples.prompts={questions}", "samples.max_new_tokens=2")
    done = train(*chosen, *watched, "trainer.max_steps=4")
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    found = [line for line in lines if "loss" in line]
    assert found[-1]["loss"] < found[0]["loss"]
    assert ("loss_scale" in found[-1]) == (precision == "16-mixed")
    assert "val_loss" in lines[-1]
    assert len(read_jsonl(tmp_path / "runs" / "test" / "samples.jsonl")) == 2
    saved = all_tensors(RunFolder(tmp_path / "runs", "test").checkpoint(4))
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
