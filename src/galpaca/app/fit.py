"""Training under Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from galpaca.app.config import Config
from galpaca.app.console import TrainingProgress
from galpaca.app.engine import Engine, peak_flops
from galpaca.app.memory import memory_advice
from galpaca.app.prepare import Steps
from galpaca.app.ranks import global_rank
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.model.opt import architecture_of
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import MetricsFile
from galpaca.runs.record import RunRecord
from galpaca.runs.shutdown import Shutdown

if TYPE_CHECKING:
    import lightning as L
    from rich.console import Console
    from torch import Tensor
    from transformers import OPTForCausalLM

    from galpaca.training.metrics import Sink


def fit(
    config: Config,
    folder: RunFolder,
    record: RunRecord,
    steps: Steps,
    model: OPTForCausalLM,
    engine: Engine,
    shutdown: Shutdown,
    console: Console,
) -> dict[str, Tensor]:
    """Trains from the newest checkpoint on, or from the start.

    Returns:
        All trained weights under their own names, on rank 0.

    Raises:
        StoppedBySignal: asked to stop, and saved.
    """
    from galpaca.training.checkpoints import STATE, Checkpointer
    from galpaca.training.metrics import LoggerSink, StepMetrics
    from galpaca.training.module import InstructionTuner
    from galpaca.training.speed import StepSpeed
    from galpaca.training.trainer import make_trainer

    first_step = folder.last_saved_step()
    loggers = engine.make_loggers(folder=folder, run_id=record.id)
    with ExitStack() as stack:
        file: MetricsFile | None = None
        sinks: list[Sink] = []
        if global_rank() == 0:
            file = stack.enter_context(closing(MetricsFile(folder.metrics)))
            progress = stack.enter_context(TrainingProgress(console, steps.num_steps, first_step))
            sinks = [file, progress, LoggerSink(loggers)]
            for logger in loggers:
                logger.log_hyperparams({"config": asdict(config), **record.content})
        metrics = StepMetrics(
            sinks,
            shutdown,
            steps_per_epoch=steps.per_epoch,
            every_steps=config.trainer.read_metrics_every_steps,
            speed=StepSpeed(architecture_of(model.config), peak_flops(config)),
        )
        checkpointer = Checkpointer(
            folder,
            metrics,
            file,
            num_steps=steps.num_steps,
            every_steps=config.checkpoint.every_steps,
            keep_last=config.checkpoint.keep_last,
        )
        # The order matters: a step's figures come before the checkpoint that counts on them.
        trainer = make_trainer(
            engine.strategy,
            engine.precision,
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            num_nodes=config.trainer.num_nodes,
            val_every_steps=config.trainer.val_every_steps or steps.per_epoch,
            callbacks=[metrics, checkpointer, *engine.callbacks],
            loggers=loggers,
            root=folder.path,
        )
        tuner = InstructionTuner(model, config.optim, num_steps=steps.num_steps, seed=config.seed)
        checkpoint = folder.checkpoint(first_step) / STATE if first_step else None
        with _children_of(trainer, config):
            trainer.fit(tuner, datamodule=steps.module, ckpt_path=checkpoint)
            state = engine.strategy.full_state_dict()
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


@contextmanager
def _children_of(trainer: L.Trainer, config: Config) -> Iterator[None]:
    """Ends the processes that Lightning started along with this one, whichever way this one ends."""
    import torch

    try:
        yield
    except StoppedBySignal:
        _wait_for_children(trainer)
        raise
    except torch.OutOfMemoryError as error:
        _kill_children(trainer)
        raise GalpacaError(
            "the GPU is out of memory",
            where=f"batch.max_tokens={config.batch.max_tokens}",
            why=str(error).splitlines()[0],
            fix="one of these, what costs least first; all but the moments go on with this run:\n"
            + "\n".join(f"  {number}. {advice}" for number, advice in enumerate(memory_advice(config), start=1)),
        ) from None
    except BaseException:
        _kill_children(trainer)
        raise
    else:
        _leave_process_group()


def _wait_for_children(trainer: L.Trainer) -> None:
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.wait()


def _kill_children(trainer: L.Trainer) -> None:
    # SIGTERM would only set their flag, and they may wait for this process in a collective.
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.kill()


def _leave_process_group() -> None:
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
