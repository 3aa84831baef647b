"""Runs training under Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, cast

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.console import TrainingProgress
from galpaca.app.train.callbacks import in_order, make_checkpointer, make_metrics, make_policy, val_every_steps
from galpaca.app.train.data import Steps
from galpaca.app.train.instantiate import Engine
from galpaca.app.train.memory_advice import memory_advice
from galpaca.app.train.samples import Samples
from galpaca.app.train.start import StartingPoint
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import process_age_seconds
from galpaca.runs.metrics import MetricsFile
from galpaca.runs.record import RunRecord
from galpaca.runs.shutdown import Shutdown, signal_of

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from rich.console import Console
    from transformers import OPTForCausalLM

    from galpaca.training.callbacks.metrics import Sink
    from galpaca.training.checkpoints.store import CheckpointStore
    from galpaca.training.strategies import StepStrategy


def fit(
    config: Config,
    folder: RunFolder,
    record: RunRecord,
    steps: Steps,
    model: OPTForCausalLM,
    begin: StartingPoint,
    samples: Samples | None,
    engine: Engine,
    loggers: Sequence[Logger],
    shutdown: Shutdown,
    console: Console,
) -> None:
    """Trains from a checkpoint or from scratch, and ends with a checkpoint of the last step.

    Args:
        model: on the meta device.
        begin: where to start.
        loggers: left open for what follows training.

    Raises:
        StoppedBySignal: the run was asked to stop and has been saved.
    """
    from galpaca.training.checkpoints.store import CheckpointStore
    from galpaca.training.consensus import Consensus
    from galpaca.training.logger_sink import LoggerSink
    from galpaca.training.module import InstructionTuner
    from galpaca.training.trainer import make_trainer

    with ExitStack() as stack:
        file: MetricsFile | None = None
        sinks: list[Sink] = []
        logger_sink = LoggerSink(loggers)
        if global_rank() == 0:
            file = stack.enter_context(closing(MetricsFile(folder.metrics)))
            progress = stack.enter_context(TrainingProgress(console, steps.num_steps, begin.step))
            sinks = [file, progress, logger_sink]
            for logger in loggers:
                logger.log_hyperparams({"config": config.values(), **record.content})
        policy = make_policy(config, folder, steps)
        consensus = Consensus(shutdown, config.trainer.read_metrics_every_steps)
        metrics = make_metrics(config, folder, steps, model.config, sinks, consensus, policy)
        store = CheckpointStore(begin.weights, begin.shapes, config.optim.factory, begin.tuning)
        checkpointer = make_checkpointer(
            config, folder, steps, record.content["recipe"], store, metrics, file, [logger_sink]
        )
        policy.checkpoints = checkpointer
        callbacks = in_order(config, folder, steps, begin, metrics, checkpointer, samples, loggers, engine.callbacks)
        trainer = make_trainer(
            engine.strategy,
            engine.precision,
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            num_nodes=config.trainer.num_nodes,
            val_every_steps=val_every_steps(config, steps),
            callbacks=[*callbacks, _record_startup(record, store, callbacks)],
            loggers=loggers,
            root=folder.path,
        )
        tuner = InstructionTuner(
            model,
            config.optim,
            num_steps=steps.num_steps,
            seed=config.seed,
            guard=policy.guard,
            tuning=begin.tuning,
        )
        engine.strategy.store = store
        with _children_of(trainer, config):
            trainer.fit(tuner, datamodule=steps.module, ckpt_path=folder.checkpoint(begin.step))
        shutdown.deferred = False
        stop = consensus.agreed_stop or (signal_of(shutdown.urgency) if shutdown.urgency else None)
        if stop and global_rank() == 0:  # others have nothing left to do
            told = "stopped after the last step, which is saved; rerun the command to release the model"
            raise StoppedBySignal(told, stop, agreed=True)


def _record_startup(record: RunRecord, store: CheckpointStore, before: Sequence[L.Callback]) -> L.Callback:
    """Records how long startup took until the first step.

    Args:
        before: callbacks that run before it, such as the one that answers samples.
    """
    from lightning.pytorch.callbacks import LambdaCallback

    from galpaca.training.callbacks.samples import SampleAnswers

    def tell(*_: object) -> None:
        if global_rank() != 0:
            return
        age = process_age_seconds()
        until = {} if age is None else {"until_first_step": age}
        samples = sum(one.seconds for one in before if isinstance(one, SampleAnswers))
        record.add_seconds(load=store.load_seconds, samples=samples, **until)

    return LambdaCallback(on_train_start=tell)


@contextmanager
def _children_of(trainer: L.Trainer, config: Config) -> Iterator[None]:
    """Ends the processes that Lightning launched from this one, however this one ends."""
    import torch

    try:
        yield
    except StoppedBySignal as stop:
        if stop.agreed:
            _wait_for_children(trainer)
        else:  # they may be waiting for this process
            _kill_children(trainer)
        raise
    except torch.OutOfMemoryError as error:
        _kill_children(trainer)
        of_strategy = cast("StepStrategy", trainer.strategy).memory_advice(config.trainer.num_ranks)
        told = GalpacaError(
            "GPU out of memory",
            where=f"batch.max_tokens={config.batch.max_tokens}",
            why=str(error).splitlines()[0],
            fix="try one of these, cheapest first (this run can be resumed with them, unless they say otherwise):\n"
            + "\n".join(f"  {number}. {one}" for number, one in enumerate(memory_advice(config, of_strategy), start=1)),
        )
        told.of_one_rank = True  # its micro-batches are not those of the others
        raise told from None
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
