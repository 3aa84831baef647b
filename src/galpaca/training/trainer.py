"""The ``lightning.Trainer`` of every run."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.precision import Precision

from galpaca.training.loops import replace_loops
from galpaca.training.process_group import cluster_environment
from galpaca.training.specs import TrainerSpec
from galpaca.training.strategies.step_strategy import StepStrategy


def make_trainer(
    strategy: StepStrategy,
    precision: Precision,
    spec: TrainerSpec,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger] = (),
    root: Path | None = None,
) -> L.Trainer:
    """A trainer whose batches are whole optimizer steps, and which leaves showing and saving to its callbacks.

    Args:
        spec: the machine; and when to validate, ``val_every_steps`` being set.
    """
    _hush_libraries()
    trainer = L.Trainer(
        accelerator=spec.accelerator,
        devices=spec.devices,
        num_nodes=spec.num_nodes,
        strategy=strategy,
        plugins=[precision, cluster_environment(spec.num_ranks)],
        max_epochs=1,  # all the plan's epochs are one of Lightning's: a step's number is its place in it
        val_check_interval=spec.val_every_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        enable_checkpointing=False,  # ours is a plain callback
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=list(loggers) or False,
        callbacks=list(callbacks),
        default_root_dir=root,
    )
    replace_loops(trainer)
    return trainer


def _hush_libraries() -> None:
    """Leaves out advice that does not apply and what libraries announce about their own future.

    The latter is shown if ``-W`` or ``PYTHONWARNINGS`` requests any warnings, as tests do.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # collating a step takes a millisecond, worker processes would cost more
        ".*Multiple backends are registered with this ProcessGroup.*",
        ".*FSDP2-wrapped module .* returned a view tensor.*",  # and nobody changes it in its place
        ".*Total length of `list` across ranks is zero.*",  # no validation was requested
    ):
        warnings.filterwarnings("ignore", message=message)
    if sys.warnoptions:
        return
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|lightning|transformers)\b")
    for message in (
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*torch.distributed.nn.functional.all_gather is deprecated.*",
        ".*_get_pg_default_device.*",
    ):
        warnings.filterwarnings("ignore", message=message)
