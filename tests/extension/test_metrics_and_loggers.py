"""A metric and a logger, added without touching the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from safetensors.torch import load_file

from galpaca.app.report import write_report

STEPS = 6
METRIC = (
    "+callbacks.mine._target_=extension.own_callbacks.EmbeddingNorm",
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "optim.lr=1e-2",
    "batch.max_tokens=256",
)
LEDGER = ("logger._target_=extension.own_callbacks.ledger",)


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("every", [1, 4])
def test_a_metric_lands_in_the_steps_line_in_loggers_and_in_the_report(
    train: Train, tmp_path: Path, every: int
) -> None:
    """Also of steps that are read together later; its own group is that of the loggers."""
    done = train(*METRIC, *LEDGER, f"trainer.read_metrics_every_steps={every}")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "test"
    lines = steps_of(run)
    assert [line["mine/examples"] for line in lines] == [line["examples"] for line in lines]
    assert all(line["mine/gradient_norm"] > 0 for line in lines)
    norms = [line["mine/embedding_norm"] for line in lines]
    assert len(set(norms)) == STEPS
    embeddings = load_file(run / "model" / "model.safetensors")["model.decoder.embed_tokens.weight"]
    assert norms[-1] == pytest.approx(float(embeddings.norm()), rel=1e-6)
    sent: list[Any] = [line["metrics"] for line in read_jsonl(run / "ledger.jsonl") if line["what"] == "metrics"]
    assert [figures["mine/embedding_norm"] for figures in sent if "loss/train" in figures] == norms
    assert "Mine: embedding norm" in write_report([run]).read_text(encoding="utf-8")


def test_a_metric_of_two_ranks_is_that_of_the_first(train: Train, tmp_path: Path) -> None:
    """Killed and resumed, each step has it once."""
    two = ("strategy=ddp", "trainer.devices=2", "checkpoint.every_steps=2")
    hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (3,)}
    assert train(*METRIC, *two, **hook).returncode == 143
    done = train(*METRIC, *two)
    assert done.returncode == 0, done.stderr
    lines = steps_of(tmp_path / "runs" / "test")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(line["mine/embedding_norm"] > 0 for line in lines)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (("loss",), "the figure 'loss' has no group"),
        (("mine/two", "num_values=2"), "the figure 'mine/two' has 2 values"),
    ],
)
def test_a_figure_that_cannot_be_one_is_an_error(train: Train, figure: tuple[str, ...], message: str) -> None:
    """One called like a figure of the line's own would take its place."""
    name, *more = figure
    target = ["+callbacks.bad._target_=extension.own_callbacks.BadFigure", f"+callbacks.bad.name={name}"]
    done = train(*target, *(f"+callbacks.bad.{one}" for one in more))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_logger_gets_everything_and_is_closed(train: Train, tmp_path: Path) -> None:
    done = train(*LEDGER, "+logger.name=book.jsonl", "data.val_fraction=0.2")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "test"
    sent = read_jsonl(run / "book.jsonl")
    params = sent[0]["params"]
    assert sent[0]["what"] == "hyperparams"
    assert params["config"]["optim"]["_target_"].endswith(".AdamW")
    assert params["config"]["optim"]["beta1"] == 0.9
    losses = {line["step"]: line["metrics"]["loss/train"] for line in sent if "loss/train" in line.get("metrics", {})}
    assert losses == {line["step"]: line["loss"] for line in steps_of(run)}
    assert any("loss/val" in line.get("metrics", {}) for line in sent)
    assert sent[-1] == {"what": "close", "exit_code": 0}
    assert re.search(r"Ledger: to complete what it has, use cat .*book\.jsonl", done.stdout.replace("\n", " "))


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(train: Train, tmp_path: Path) -> None:
    done = train(*LEDGER, "+logger.fails_at=2")
    assert done.returncode == 0, done.stderr
    assert "Ledger gets no metrics from step 2 on" in done.stderr
    assert len(steps_of(tmp_path / "runs" / "test")) == 4


def test_figures_stay_on_their_device_until_they_are_read() -> None:
    """One read for the figures of all steps that are read together."""
    from galpaca.training.figures import read_figures

    steps: list[dict[str, torch.Tensor | float]] = [
        {"a/x": torch.tensor(1.5), "a/n": 2},
        {},
        {"a/x": torch.tensor([3])},
    ]
    assert read_figures(steps, torch.device("cpu")) == [{"a/x": 1.5, "a/n": 2.0}, {}, {"a/x": 3.0}]
