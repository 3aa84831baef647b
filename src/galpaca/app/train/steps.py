"""The steps of a run: how many, and when they are validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from galpaca.app.config.schema import Config
from galpaca.app.train.data import PreparedData
from galpaca.training.specs import steps_between_validations

if TYPE_CHECKING:
    from galpaca.training.datamodule import AlpacaDataModule


@dataclass(frozen=True)
class Steps:
    """The run's steps.

    Attributes:
        module: the data, planned.
        num_steps: optimizer steps of the whole run.
        per_epoch: optimizer steps of an epoch.
        num_ranks: number of ranks.
        val_every_steps: optimizer steps between validations.
    """

    module: AlpacaDataModule
    num_steps: int
    per_epoch: int
    num_ranks: int
    val_every_steps: int


def plan_steps(config: Config, data: PreparedData) -> Steps:
    """Plans every step of the run.

    Raises:
        InputError: the token budget of a micro-batch is below the longest example.
    """
    from galpaca.training.datamodule import AlpacaDataModule

    module = AlpacaDataModule(
        data.split,
        config.batch,
        config.trainer,
        seed=config.seed,
        pad_id=data.tokenizer.pad_id,
        pads_to_sizes=config.compute.compiles(config.fast_attention),
    )
    num_ranks = config.trainer.num_ranks
    plan = module.train_plan(num_ranks)
    module.val_plans(num_ranks)
    per_epoch = plan.steps_per_epoch
    val_every_steps = steps_between_validations(config.trainer, config.checkpoint, per_epoch)
    return Steps(module, module.num_steps, per_epoch, num_ranks, val_every_steps)
