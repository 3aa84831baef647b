"""What is trained, saved, restored and counted is what one object says: here, biases and layer norms alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from conftest import Train, read_jsonl
from extension.checkpoint_tensors import all_tensors
from extension.own_tuning import BiasesAndNorms
from parity.flat_run import save_model
from safetensors.torch import load_file

from galpaca.model.tuning.full import FullTuning
from galpaca.runs.checkpoints import damage, read_manifest
from galpaca.runs.folder import RunFolder

STEPS = 6
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "data.max_length=64",
    "batch.max_tokens=200",
    "optim.lr=1e-2",
    "checkpoint.every_steps=2",
    "checkpoint.asynchronous=false",
)
STRATEGIES = {
    "single": ("strategy=single",),
    "ddp": ("strategy=ddp", "trainer.devices=2"),
    "fsdp": ("strategy=fsdp", "trainer.devices=2"),
}
OWN = "tuning._target_=extension.own_tuning.BiasesAndNorms"


@pytest.mark.parametrize(
    "strategy", [pytest.param("single"), pytest.param("ddp", marks=pytest.mark.slow), pytest.param("fsdp")]
)
def test_optimizer_checkpoint_resume_and_manifest_follow(
    train: Train, tmp_path: Path, tokenizer_folder: Path, strategy: str
) -> None:
    model = save_model(tmp_path / "model", tokenizer_folder)
    base = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    base.pop("lm_head.weight", None)
    trained = {name for name in base if BiasesAndNorms().trained(name)}
    chosen = (f"model.path={model}", OWN, *COMMON, *STRATEGIES[strategy])

    straight, killed = (RunFolder(tmp_path / "runs", name) for name in ("straight", "killed"))
    done = train(*chosen, "run.name=straight")
    num_trained = sum(base[name].numel() for name in trained)
    total = sum(tensor.numel() for tensor in base.values())
    assert done.returncode == 0, done.stderr
    # What was not trained is in no checkpoint, and comes from the weights that the run started from.
    released = load_file(straight.model / "model.safetensors")
    changed = {name for name in base if not torch.equal(released[name].float(), base[name])}
    assert changed <= trained
    assert len(changed) > len(trained) / 2

    checkpoint = straight.checkpoint(STEPS)
    assert not damage(checkpoint)
    manifest = read_manifest(checkpoint)
    assert {name: tuple(shape) for name, shape in manifest.parameters.items()} == {
        name: tuple(base[name].shape) for name in trained
    }
    saved = all_tensors(checkpoint)
    assert saved.keys() == {f"{kind}/{name}" for kind in ("weight", "exp_avg", "exp_avg_sq") for name in trained}
    assert sum(tensor.numel() for tensor in saved.values()) == 3 * num_trained
    # All but the keys' biases, whose gradient is 0 by arithmetic.
    for name in (name for name in trained if not name.endswith("k_proj.bias")):
        assert not torch.equal(saved[f"weight/{name}"], base[name].flatten()), f"{name} did not train"
    losses = [line["loss"] for line in read_jsonl(straight.metrics) if "loss" in line]
    assert losses[-1] < losses[0]
    record = json.loads(straight.record.read_text(encoding="utf-8"))
    assert record["parameters"] == total
    assert record["starts"][-1]["setup"]["trained"] == f"{num_trained:,}"

    kill(train, killed, chosen)
    resumed = train(*chosen, "run.name=killed")
    assert resumed.returncode == 0, resumed.stderr
    again = all_tensors(killed.checkpoint(STEPS))
    assert all(torch.equal(again[name], saved[name]) for name in saved)
    assert [line["loss"] for line in read_jsonl(killed.metrics) if "loss" in line] == losses


def kill(train: Train, folder: RunFolder, chosen: tuple[str, ...]) -> None:
    """A step after a checkpoint."""
    hook = {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (5, signal.SIGKILL)}
    assert train(*chosen, "run.name=killed", **hook).returncode == -signal.SIGKILL
    assert folder.last_saved_step() == 4


def test_strategies_train_the_same(train: Train, tmp_path: Path, tokenizer_folder: Path) -> None:
    """FSDP's flat gradient covers what is not trained, too; the norm that clips must not."""
    model = save_model(tmp_path / "model", tokenizer_folder)
    found = {}
    for name, strategy in STRATEGIES.items():
        train(
            f"model.path={model}",
            OWN,
            *COMMON,
            "optim.clip_norm=0.1",
            "model.dropout=0",
            f"run.name={name}",
            *strategy,
        )
        lines = [line for line in read_jsonl(tmp_path / "runs" / name / "metrics.jsonl") if "loss" in line]
        found[name] = [(line["loss"], line["grad_norm"]) for line in lines]
    for other in ("ddp", "fsdp"):
        for one, pair in zip(found["single"], found[other], strict=True):
            assert pair == pytest.approx(one, rel=1e-4), other


def test_full_tuning_trains_everything() -> None:
    shapes = {"a.weight": (2, 3), "a.bias": (2,)}
    assert FullTuning().trained_shapes(shapes) == shapes
    assert BiasesAndNorms().trained_shapes(shapes) == {"a.bias": (2,)}
