"""SGD and Lion, added without touching the project: chosen, trained, saved, resumed, described, or refused."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from faults.kills import assert_equal_runs
from parity.flat_run import OVERRIDES, flat_run, save_model
from safetensors import safe_open

from galpaca.app.config.composition import compose
from galpaca.app.train.disk_need import disk_need
from galpaca.runs.checkpoints import damage, read_manifest
from galpaca.runs.folder import RunFolder

CONF = f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]"
STEPS = 6
STRATEGIES = {"single": ("strategy=single",), "fsdp": ("strategy=fsdp", "trainer.devices=2")}
SMALL = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "model.dropout=0.3",
    "checkpoint.every_steps=2",
    "checkpoint.asynchronous=false",
)
# Kinds of state with their dtypes, bytes of a parameter in a checkpoint, and the line of the card.
OPTIMIZERS: dict[str, tuple[dict[str, str], int, str]] = {
    "sgd": ({"momentum_buffer": "float32"}, 8, "SGD, momentum 0.9, weight decay 0.1"),
    "lion": ({"momentum": "bfloat16"}, 6, "Lion, betas 0.9 and 0.99, weight decay 0.1"),
}
BOTH_WAYS = [
    pytest.param("sgd", "fsdp"),
    pytest.param("lion", "single"),
    pytest.param("sgd", "single", marks=pytest.mark.slow),
    pytest.param("lion", "fsdp", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "strategy"), BOTH_WAYS)
def test_killed_and_resumed_it_ends_in_the_same_bits(train: Train, tmp_path: Path, name: str, strategy: str) -> None:
    """Its state is saved and restored; without it, momentum would begin at 0 again."""
    chosen = (CONF, f"optim={name}", "optim.lr=1e-3", "optim.weight_decay=0.1", *SMALL, *STRATEGIES[strategy])
    assert train(*chosen, "run.name=straight").returncode == 0
    straight, killed = (RunFolder(tmp_path / "runs", name) for name in ("straight", "killed"))
    hook = {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (5, signal.SIGKILL)}
    assert train(*chosen, "run.name=killed", **hook).returncode == -signal.SIGKILL
    assert killed.last_saved_step() == 4
    again = train(*chosen, "run.name=killed")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(straight.path, killed.path)
    for folder in (straight, killed):
        assert_holds_what_it_says(folder, name)
    assert_disk_room_is_right(straight, chosen)
    assert f"| optimizer | {OPTIMIZERS[name][2]} |" in (killed.model / "README.md").read_text(encoding="utf-8")
    assert json.loads(killed.record.read_text())["recipe"]["optim._target_"].endswith(f".{name.capitalize()}")


def assert_holds_what_it_says(folder: RunFolder, name: str) -> None:
    kinds, bytes_each, description = OPTIMIZERS[name]
    checkpoint = folder.checkpoint(STEPS)
    assert not damage(checkpoint)
    manifest = read_manifest(checkpoint)
    assert manifest.optimizer is not None
    assert (manifest.optimizer.state, manifest.optimizer.description) == (kinds, description)
    values = dict.fromkeys(("weight", *kinds), 0)
    num_bytes = 0
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                tensor = tensors.get_tensor(key)
                kind = key.partition("/")[0]
                assert str(tensor.dtype) == f"torch.{kinds.get(kind, 'float32')}"
                values[kind] += tensor.numel()
                num_bytes += tensor.numel() * tensor.element_size()
    assert set(values.values()) == {manifest.num_parameters}
    assert num_bytes == bytes_each * manifest.num_parameters


def assert_disk_room_is_right(folder: RunFolder, overrides: tuple[str, ...]) -> None:
    """What is requested before the first step is what a checkpoint takes, but for names and places of its tensors."""
    config, _ = compose([*overrides, "model=tiny", "model.tokenizer=x", "data.path=x", "run.name=x"])
    manifest = read_manifest(folder.checkpoint(STEPS))
    need = disk_need(folder, config, STEPS, manifest.num_parameters, manifest.num_parameters)
    assert need.checkpoint_bytes == OPTIMIZERS[config_name(config)][1] * manifest.num_parameters
    assert 0 <= manifest.num_bytes - need.checkpoint_bytes < 50_000


def config_name(config: Any) -> str:
    return str(config.optim.factory.target()).rpartition(".")[2].lower()


class PlainLion(torch.optim.Optimizer):
    """Written once more, from the paper's pseudocode (Chen et al. 2023, algorithm 2)."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})
        self.momenta: dict[Any, torch.Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weights in group["params"]:
                momentum = self.momenta.get(weights, torch.zeros_like(weights))
                update = torch.sign(0.9 * momentum + (1 - 0.9) * weights.grad)
                weights -= group["lr"] * (update + group["weight_decay"] * weights)
                self.momenta[weights] = (0.99 * momentum + (1 - 0.99) * weights.grad).bfloat16().float()


REFERENCES: dict[str, tuple[float, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (0.1, partial(torch.optim.SGD, momentum=0.9)),
    "lion": (1e-3, PlainLion),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_it_trains_as_the_flat_loop_does(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path, name: str
) -> None:
    model = save_model(tmp_path / "model", tokenizer_folder)
    rate, make_optimizer = REFERENCES[name]
    chosen = (CONF, f"optim={name}", f"optim.lr={rate}", f"trainer.max_steps={STEPS}")
    done = train(f"model.path={model}", *OVERRIDES, *chosen, "data.template=alpaca")
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    reference = flat_run(model, tokenizer_folder, records_file, STEPS, lr=rate, make_optimizer=make_optimizer)
    for line, expected in zip(ours, reference, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=1e-4), f"{key} of step {line['step']}"
    losses = [float(str(line["loss"])) for line in ours]
    assert not math.isclose(losses[0], losses[-1], rel_tol=1e-3), "the updates should show"


def refused(train: Train, tmp_path: Path, *overrides: str) -> str:
    done = train(CONF, *overrides)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "test").exists()
    return done.stderr


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "state of another shape": (
        ("optim=adafactor",),
        ("'row_var' must have the parameter's shape", "'col_var' must have the parameter's shape"),
    ),
    "a value that it refuses": (("optim=sgd", "optim.momentum=2"), ("momentum must be in [0, 1), got 2.0",)),
    "a value of another type": (
        ("optim=sgd", "optim.momentum=much"),
        ("momentum: must be a number, got 'much'",),
    ),
    "a key of another optimizer": (("optim=sgd", "+optim.beta1=0.9"), ("optim.beta1: unknown key",)),
    "mistakes of both kinds": (("optim=sgd", "optim.momentum=2", "optim.lr=-1"), ("got 2.0", "optim.lr: must be > 0")),
    "a class that is none": (
        ("optim._target_=torch.optim.SGD",),
        ("torch.optim.SGD: must be a frozen dataclass derived from OptimizerFactory",),
    ),
    "a class that is not there": (("optim._target_=extension.no.such",), ("extension.no.such", "conf/optim/")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_one_is_refused_before_anything_is_written(train: Train, tmp_path: Path, case: str) -> None:
    overrides, shown = BAD[case]
    message = refused(train, tmp_path, *overrides)
    assert all(one in message for one in shown), message


def test_another_optimizer_than_the_run_was_started_with_is_refused(train: Train, tmp_path: Path) -> None:
    """First as another recipe; and accepted as that, its checkpoint has no state for it."""
    started = train(CONF, "optim=sgd", "trainer.max_steps=2")
    assert started.returncode == 0, started.stderr
    (tmp_path / "runs" / "test" / "model").rename(tmp_path / "elsewhere")
    other = train(CONF, "optim=lion", "trainer.max_steps=2")
    assert other.returncode == 2
    assert "optim._target_: extension.own_optimizers.Sgd -> extension.own_optimizers.Lion" in other.stderr
    accepted = train(CONF, "optim=lion", "trainer.max_steps=2", "run.accept_changes=true")
    assert accepted.returncode == 2, accepted.stderr
    assert "the checkpoint holds the optimizer's state momentum_buffer" in accepted.stderr
    assert "Traceback" not in accepted.stderr
    # Nothing was written, and what is not of the recipe may change.
    resumed = train(CONF, "optim=sgd", "optim.foreach=true", "trainer.max_steps=2")
    assert resumed.returncode == 0, resumed.stderr
