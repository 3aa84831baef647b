"""Loggers by configuration. ``metrics.jsonl`` is always written; these come on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from galpaca.runs.folder import RunFolder
from galpaca.tracking.service import Run

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


def none(folder: RunFolder, run_id: str) -> list[Logger]:
    """``metrics.jsonl`` alone."""
    return []


def wandb(
    folder: RunFolder,
    run_id: str,
    project: str = "galpaca",
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
) -> list[Logger]:
    """Weights & Biases: one run for a run folder, however often it is started; ``galpaca sync`` where there is no key.

    Args:
        project: where the run is shown.
        entity: person or team whose project it is; by default that of the key.
        group: under which it is shown with others.
        tags: tags to filter runs by.
        notes: free text about the run.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from galpaca.training.loggers.wandb_logger import WandbLogger

    if getattr(rank_zero_only, "rank", 0) != 0:
        return []
    return [WandbLogger(Run(folder, run_id, project, entity, group, tuple(tags), notes))]


# ``wandb agent`` names the run that it starts, and W&B takes no other name within a sweep.
wandb.run_id_variable = "WANDB_RUN_ID"  # type: ignore[attr-defined]


def tensorboard(folder: RunFolder, run_id: str) -> list[Logger]:
    """TensorBoard's event files (needs the extra ``tensorboard``)."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(folder.path, name="tensorboard", version="")]


def csv(folder: RunFolder, run_id: str) -> list[Logger]:
    """Lightning's ``csv/metrics.csv``, one for each time the run is started."""
    from lightning.pytorch.loggers import CSVLogger

    return [CSVLogger(folder.path, name="csv")]
