"""Instantiates and checks the configuration's ``_target_`` entries before anything is written."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from galpaca.app.cluster.ranks import local_rank
from galpaca.app.config.schema import Config
from galpaca.app.train.tuning import check_tuning
from galpaca.errors import InputError
from galpaca.estimate.gpus import dense_peak
from galpaca.training.determinism import set_determinism
from galpaca.training.memory import prepare_memory
from galpaca.training.optimizers.state import check_state
from galpaca.training.strategies.factory import StrategyFactory

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins.precision import Precision

    from galpaca.training.strategies.step_strategy import StepStrategy


@dataclass(frozen=True)
class Engine:
    """Strategy, precision, callbacks and loggers of a run.

    Attributes:
        id_variable: environment variable with the id that the logger's service has chosen for the run, if any.
    """

    strategy: StepStrategy
    precision: Precision
    callbacks: list[L.Callback]
    make_loggers: Callable[..., list[Logger]]
    id_variable: str | None = None


def make_engine(config: Config) -> Engine:
    """Builds what trains, as configured.

    Raises:
        InputError: a precision or a layout of processes that the strategy refuses, a target that does not bind, an
            optimizer whose state a checkpoint cannot hold, tuning that the strategy or the precision cannot do, an
            environment in which a GPU cannot be deterministic.
    """
    prepare_memory(config.trainer.accelerator)
    set_determinism(config.trainer.accelerator, config.compute.deterministic)
    make_callbacks = [bound(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    make_loggers = bound(config.logger, "logger", ("folder", "run_id"))
    factory = config.strategy.factory
    strategy, precision = factory.make(config.trainer.accelerator, config.precision)
    _check_num_ranks(config, factory)
    factory.check_layout(config.trainer.devices, config.trainer.num_nodes)
    check_tuning(config)
    check_state(config.optim.factory, getattr(torch, config.precision.weight_dtype), _device(config))
    callbacks = [make_callback() for make_callback in make_callbacks]
    # wandb agent names the run that it starts.
    variable = getattr(getattr(make_loggers, "func", None), "run_id_variable", "")
    id_variable = variable if os.environ.get(variable) else None
    return Engine(strategy, precision, callbacks, make_loggers, id_variable)


def _device(config: Config) -> torch.device:
    """This process's, which Lightning has not chosen yet."""
    return torch.device("cpu") if config.trainer.accelerator == "cpu" else torch.device("cuda", local_rank())


def check_machine(config: Config) -> None:
    """Checks that this machine fits the run.

    Raises:
        InputError: too few GPUs, or no compiler for them.
    """
    trainer = config.trainer
    if trainer.accelerator != "gpu":
        return
    if torch.version.cuda and find_spec("triton") is None:  # the compiler of layers and of the optimizer's update
        raise InputError(
            "Triton is not installed, with which torch compiles for GPUs",
            where="compute.compile",
            fix="pip install triton, in the version that this torch requires",
        )
    found = torch.cuda.device_count()
    if found < trainer.devices:
        fewer = f"trainer.devices={found}, or " if found else ""
        raise InputError(
            f"the run needs {trainer.devices} GPU(s), but this machine has {found}",
            where="trainer.devices",
            why="" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA",
            fix=f"{fewer}trainer=cpu trainer.devices=1 strategy=single for a CPU, or a machine with GPUs (see slurm/)",
        )


def _check_num_ranks(config: Config, strategy: StrategyFactory) -> None:
    num_ranks, examples = config.trainer.num_ranks, config.batch.examples
    if num_ranks > examples:
        raise InputError(
            f"{num_ranks} ranks share a step of {examples} examples: some would have none",
            where="trainer.devices",
            fix=f"trainer.devices={max(1, examples // config.trainer.num_nodes)} at most, or a larger batch.examples",
        )
    if strategy.max_ranks is None or num_ranks <= strategy.max_ranks:
        return
    most = "one process" if strategy.max_ranks == 1 else f"{strategy.max_ranks} processes at most"
    raise InputError(
        f"strategy={strategy.name} supports {most}, got {num_ranks}",
        where="strategy",
        fix="strategy=fsdp or strategy=ddp, or trainer.devices=1 trainer.num_nodes=1",
    )


def peak_flops(config: Config) -> float | None:
    """Peak FLOP/s of all GPUs of the run together; None if the GPU is not listed."""
    if config.trainer.accelerator != "gpu":
        return None
    peak = dense_peak(torch.cuda.get_device_name(), config.precision.name)
    return peak and peak * config.trainer.num_ranks


def bound(node: Any, where: str, given: Sequence[str] = ()) -> Callable[..., Any]:
    """The ``_target_`` of a configuration node, ready to be called with ``given``.

    Raises:
        InputError: there is no such target, or it does not take these arguments or their values.
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
