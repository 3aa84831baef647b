"""Instantiates and checks the configuration's ``_target_`` entries before anything is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from galpaca.app.cluster.launch import check_launch
from galpaca.app.config.schema import Config
from galpaca.errors import InputError

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins.precision import Precision

    from galpaca.training.strategies import StepStrategy


@dataclass(frozen=True)
class Engine:
    """Strategy, precision, callbacks and loggers of a run."""

    strategy: StepStrategy
    precision: Precision
    callbacks: list[L.Callback]
    make_loggers: Callable[..., list[Logger]]


def make_engine(config: Config) -> Engine:
    """Builds what trains, as the configuration asks for it.

    Raises:
        InputError: a precision that the strategy refuses, more processes than it takes, a target that does not bind.
    """
    from galpaca.training.memory import prepare_memory

    prepare_memory(config.trainer.accelerator)
    make_strategy = bound(config.strategy, "strategy", ("accelerator", "precision"))
    make_callbacks = [bound(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    make_loggers = bound(config.logger, "logger", ("folder", "run_id"))
    strategy, precision = make_strategy(accelerator=config.trainer.accelerator, precision=config.precision)
    _check_num_ranks(config, strategy)
    return Engine(strategy, precision, [make_callback() for make_callback in make_callbacks], make_loggers)


def check_machine(config: Config) -> None:
    """Checks that this machine and what was started on it fit the run.

    Raises:
        InputError: too few GPUs, another number of processes than was started, or shards of a node with one process.
    """
    asked = config.trainer
    check_launch(asked)
    if config.strategy.get("sharding_strategy") == "HYBRID_SHARD" and asked.devices == 1 and asked.num_nodes > 1:
        raise InputError(
            "HYBRID_SHARD shards within a node, but each node has only one process",
            where="strategy.sharding_strategy",
            fix="strategy=ddp (a copy per node), or strategy.sharding_strategy=FULL_SHARD (shards over all nodes)",
        )
    if asked.accelerator != "gpu":
        return
    import torch

    found = torch.cuda.device_count()
    if found < asked.devices:
        fewer = f"trainer.devices={found}, or " if found else ""
        raise InputError(
            f"the run needs {asked.devices} GPU(s), but this machine has {found}",
            where="trainer.devices",
            why="" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA",
            fix=f"{fewer}trainer=cpu trainer.devices=1 strategy=single for a CPU, or a machine with GPUs (see slurm/)",
        )


def _check_num_ranks(config: Config, strategy: StepStrategy) -> None:
    num_ranks = config.trainer.num_ranks
    if strategy.max_ranks is None or num_ranks <= strategy.max_ranks:
        return
    name = str(config.strategy["_target_"]).rpartition(".")[2]
    most = "one process" if strategy.max_ranks == 1 else f"{strategy.max_ranks} processes at most"
    raise InputError(
        f"strategy={name} supports {most}, got {num_ranks}",
        where="strategy",
        fix="strategy=fsdp or strategy=ddp, or trainer.devices=1 trainer.num_nodes=1",
    )


def peak_flops(config: Config) -> float | None:
    """Peak FLOP/s of all GPUs of the run together; None if the GPU is not listed."""
    if config.trainer.accelerator != "gpu":
        return None
    import torch

    from galpaca.estimate.peaks import dense_peak

    peak = dense_peak(torch.cuda.get_device_name(), config.precision.name)
    return peak and peak * config.trainer.num_ranks


def bound(node: Any, where: str, given: Sequence[str] = ()) -> Callable[..., Any]:
    """The ``_target_`` of a configuration node, ready to be called with ``given``.

    Raises:
        InputError: there is no such target, or it does not take these arguments.
    """
    from hydra.utils import instantiate

    try:
        partial = instantiate(node, _partial_=True)
        inspect.signature(partial.func).bind(*partial.args, **partial.keywords, **dict.fromkeys(given))
    except Exception as error:  # Hydra wraps whatever the import raised
        target = node.get("_target_", "no _target_") if isinstance(node, dict) else f"{node!r} has no _target_"
        raise InputError(
            f"{target}: {str(error).splitlines()[0].partition(', set env var')[0]}",
            where=where,
            fix=f"a _target_ and its arguments, as in the files of conf/{where.split('.')[0]}/",
        ) from None
    return partial
