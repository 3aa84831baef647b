"""Loggers by configuration. ``metrics.jsonl`` is always written; these come on top of it."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from galpaca.runs.folder import RunFolder


def none(folder: RunFolder, run_id: str) -> list[Logger]:
    """``metrics.jsonl`` alone."""
    return []


def wandb(folder: RunFolder, run_id: str, project: str = "galpaca", entity: str | None = None) -> list[Logger]:
    """Weights & Biases: one run for a run folder, however often it is started; offline where there is no key."""
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) != 0:
        return []
    return [WandbLogger(experiment=_wandb_run(folder, run_id, project, entity))]


def _wandb_run(folder: RunFolder, run_id: str, project: str, entity: str | None) -> Any:
    import wandb as library

    # Begun here and not by Lightning's logger, which cannot fall back when the service does not answer.
    def begin(mode: Literal["online", "offline"]) -> Any:
        return library.init(
            project=project,
            entity=entity,
            name=folder.name,
            id=run_id,
            resume="allow" if mode == "online" else None,
            dir=folder.path,
            mode=mode,
            settings=library.Settings(console="off", silent=True),
        )

    if os.environ.get("WANDB_MODE", "online") != "online" or not library.login(prompt=False, verify=False):
        return begin("offline")
    try:
        return begin("online")
    except library.errors.Error as error:
        warnings.warn(f"W&B does not answer, and the run is logged offline: {error}", stacklevel=2)
        return begin("offline")


def tensorboard(folder: RunFolder, run_id: str) -> list[Logger]:
    """TensorBoard's event files (needs the extra ``tensorboard``)."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(folder.path, name="tensorboard", version="")]


def csv(folder: RunFolder, run_id: str) -> list[Logger]:
    """Lightning's ``csv/metrics.csv``, one for each time the run is started."""
    from lightning.pytorch.loggers import CSVLogger

    return [CSVLogger(folder.path, name="csv")]
