"""What the configuration's ``_target_`` entries stand for, made and checked before anything is written."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from galpaca.app.config import Config
from galpaca.errors import InputError

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.plugins.precision import Precision

    from galpaca.training.strategies import StepStrategy


@dataclass(frozen=True)
class Engine:
    """How the run computes."""

    strategy: StepStrategy
    precision: Precision
    callbacks: list[L.Callback]


def make_engine(config: Config) -> Engine:
    """Raises:
    InputError: too few GPUs, too many processes, a precision that the strategy refuses, a target that does not bind.
    """
    check_machine(config)
    strategy, precision = make(
        config.strategy, "strategy", accelerator=config.trainer.accelerator, precision=config.precision
    )
    callbacks = [make(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    return Engine(strategy, precision, callbacks)


def check_machine(config: Config) -> None:
    import torch

    asked = config.trainer
    found = torch.cuda.device_count()
    if asked.accelerator == "gpu" and found < asked.devices:
        fewer = f"trainer.devices={found}, or " if found else ""
        raise InputError(
            f"{asked.devices} GPUs are asked for and this machine has {found}",
            where="trainer.devices",
            fix=f"{fewer}trainer=cpu trainer.devices=1 strategy=single for a CPU",
        )
    if str(config.strategy.get("_target_")).endswith(".single") and asked.num_ranks > 1:
        raise InputError(
            f"the strategy single takes one process, and {asked.num_ranks} are asked for",
            where="strategy",
            fix="strategy=fsdp or strategy=ddp, or trainer.devices=1 trainer.num_nodes=1",
        )


def make(node: dict[str, Any], where: str, **given: Any) -> Any:
    """Calls the ``_target_`` of a configuration node.

    Raises:
        InputError: there is no such target, or it does not take these arguments.
    """
    from hydra.utils import instantiate

    try:
        partial = instantiate(node, _partial_=True)
        inspect.signature(partial.func).bind(*partial.args, **partial.keywords, **given)
    except Exception as error:  # Hydra wraps whatever the import raised
        raise InputError(
            f"{node.get('_target_', 'no _target_')}: {str(error).splitlines()[0]}",
            where=where,
            fix=f"compare with the files of conf/{where.split('.')[0]}/",
        ) from None
    return partial(**given)
