"""Training under Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from galpaca.app.config import Config
from galpaca.app.console import TrainingProgress
from galpaca.app.engine import Engine, peak_flops
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
    from lightning.pytorch.loggers import Logger
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
        trainer = _make_trainer(config, folder, steps, engine, loggers, [metrics, checkpointer, *engine.callbacks])
        tuner = InstructionTuner(model, config.optim, num_steps=steps.num_steps, seed=config.seed)
        checkpoint = folder.checkpoint(first_step) / STATE if first_step else None
        with _children_of(trainer):
            trainer.fit(tuner, datamodule=steps.module, ckpt_path=checkpoint)
            state = engine.strategy.full_state_dict()
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def _make_trainer(
    config: Config, folder: RunFolder, steps: Steps, engine: Engine, loggers: list[Logger], callbacks: list[L.Callback]
) -> L.Trainer:
    import lightning as L

    from galpaca.training.loops import use_step_loop

    _hush_libraries()
    asked = config.trainer
    trainer = L.Trainer(
        accelerator=asked.accelerator,
        devices=asked.devices,
        num_nodes=asked.num_nodes,
        strategy=engine.strategy,
        plugins=[engine.precision],
        max_epochs=1,  # all the plan's epochs are one of Lightning's: a step's number is its place in it
        val_check_interval=asked.val_every_steps or steps.per_epoch,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        enable_checkpointing=False,  # ours is a plain callback
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=loggers or False,
        callbacks=callbacks,
        default_root_dir=folder.path,
    )
    use_step_loop(trainer)
    return trainer


def _hush_libraries() -> None:
    """Leaves out what libraries say about their own future, and advice that does not apply."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|lightning|transformers)\b")
    for message in (
        ".*does not have many workers.*",  # collating a step takes a millisecond, worker processes would cost more
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*torch.distributed.nn.functional.all_gather is deprecated.*",
        ".*_get_pg_default_device.*",
        ".*Multiple backends are registered with this ProcessGroup.*",
        ".*Total length of `list` across ranks is zero.*",  # no validation was asked for
    ):
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def _children_of(trainer: L.Trainer) -> Iterator[None]:
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
            where=f"batch.max_tokens={trainer.datamodule.max_tokens}",  # type: ignore[attr-defined]
            why=str(error).splitlines()[0],
            fix="a smaller batch.max_tokens (the recipe stays the same), more GPUs with strategy=fsdp",
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
