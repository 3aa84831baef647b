"""Callbacks and a logger of a user's own, as they would be written outside of galpaca."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from galpaca.runs.folder import RunFolder


class EmbeddingNorm(L.Callback):
    """The norm of the embeddings after each update, and how far the gradient is from it, as metrics.

    Args:
        group: the metrics' group.
    """

    def __init__(self, group: str = "mine") -> None:
        self.group = group

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        weights = pl_module.model.get_input_embeddings().weight
        pl_module.figures[f"{self.group}/gradient_norm"] = weights.grad.norm()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        weights = pl_module.model.get_input_embeddings().weight
        pl_module.figures[f"{self.group}/embedding_norm"] = weights.detach().norm()
        pl_module.figures[f"{self.group}/examples"] = batch.planned.num_examples


class BadFigure(L.Callback):
    """A metric that cannot be one.

    Args:
        name: its name.
        num_values: how many values it has.
    """

    def __init__(self, name: str, num_values: int = 1) -> None:
        self.name, self.num_values = name, num_values

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        pl_module.figures[self.name] = pl_module.model.get_input_embeddings().weight.new_zeros(self.num_values)


class Ledger(Logger):
    """Writes down all that a logger gets.

    Args:
        path: the file.
        fails_at: step from which on it fails, as a service does that cannot be reached.
    """

    def __init__(self, path: Path, fails_at: int | None) -> None:
        super().__init__()
        self.path, self.fails_at = path, fails_at

    @property
    def name(self) -> str:
        return "ledger"

    @property
    def version(self) -> str:
        return "1"

    def _tell(self, what: str, **facts: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **facts}, default=str) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._tell("hyperparams", params=params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.fails_at is not None and step is not None and step >= self.fails_at:
            raise ConnectionError("nobody answers")
        self._tell("metrics", step=step, metrics=dict(metrics))

    def close(self, exit_code: int) -> None:
        self._tell("close", exit_code=exit_code)

    @property
    def next_command(self) -> str | None:
        return f"cat {self.path}" if self.fails_at is None else None


def ledger(folder: RunFolder, run_id: str, name: str = "ledger.jsonl", fails_at: int | None = None) -> list[Logger]:
    """What ``logger._target_`` names."""
    return [Ledger(folder.path / name, fails_at)]
