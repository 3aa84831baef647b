"""Loggers by configuration. ``metrics.jsonl`` is always written; these come on top of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from galpaca.runs.folder import RunFolder


def none(folder: RunFolder, run_id: str) -> list[Logger]:
    """``metrics.jsonl`` alone."""
    return []


def wandb(folder: RunFolder, run_id: str, project: str = "galpaca", entity: str | None = None) -> list[Logger]:
    """Weights & Biases, offline where there is no key. A run that goes on goes on there too."""
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(
        project=project,
        entity=entity,
        name=folder.name,
        id=run_id,
        resume="allow",
        save_dir=folder.path,
        offline=not wandb_has_key(),
    )
    return [logger]


def tensorboard(folder: RunFolder, run_id: str) -> list[Logger]:
    """TensorBoard's event files (needs the extra ``tensorboard``)."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(folder.path, name="tensorboard", version="")]


def csv(folder: RunFolder, run_id: str) -> list[Logger]:
    """Lightning's ``csv/metrics.csv``, one for each time the run is started."""
    from lightning.pytorch.loggers import CSVLogger

    return [CSVLogger(folder.path, name="csv")]


def wandb_has_key() -> bool:
    """Whether W&B could log in: a key in the environment or in the user's netrc."""
    if os.environ.get("WANDB_MODE") in {"offline", "disabled", "dryrun"}:
        return False
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def describe(logger: Logger, facts: dict[str, Any]) -> None:
    """Gives a logger the configuration and the receipt."""
    logger.log_hyperparams(facts)
