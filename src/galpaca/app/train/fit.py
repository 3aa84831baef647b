"""Runs training under Lightning."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace

import lightning as L
import torch.distributed
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import Logger
from transformers import PreTrainedModel

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.console import TrainingProgress
from galpaca.app.train.callbacks import in_order, make_hang_watch, make_metrics, make_policy
from galpaca.app.train.context import RunContext
from galpaca.app.train.instantiate import Engine
from galpaca.app.train.memory_advice import memory_advice
from galpaca.app.train.samples import Samples
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.runs.host import process_age_seconds
from galpaca.runs.metrics import MetricsFile
from galpaca.runs.record import RunRecord
from galpaca.runs.shutdown import Shutdown, signal_of
from galpaca.runs.typed import encode
from galpaca.training.callbacks.metrics import Sink
from galpaca.training.callbacks.samples import SampleAnswers
from galpaca.training.checkpoints.callback import Checkpointer, SavedRun
from galpaca.training.checkpoints.store import CheckpointStore
from galpaca.training.consensus import Consensus
from galpaca.training.determinism import undeterministic_operation
from galpaca.training.loggers.sink import LoggerSink
from galpaca.training.module import InstructionTuner
from galpaca.training.trainer import make_trainer


def fit(
    run: RunContext,
    model: PreTrainedModel,
    samples: Samples | None,
    engine: Engine,
    loggers: Sequence[Logger],
    shutdown: Shutdown,
) -> None:
    """Trains from a checkpoint or from scratch, and ends with a checkpoint of the last step.

    Args:
        model: on the meta device.
        loggers: left open for what follows training.

    Raises:
        StoppedBySignal: the run was stopped and has been saved.
    """
    config, steps = run.config, run.steps
    with ExitStack() as stack:
        logger_sink = LoggerSink(loggers)
        file, sinks = _open_sinks(run, stack, logger_sink, loggers) if global_rank() == 0 else (None, [])
        policy = make_policy(run)
        consensus = Consensus(shutdown, config.trainer.read_metrics_every_steps)
        metrics = make_metrics(run, model.config, sinks, consensus, policy)
        store = CheckpointStore(run.start.weights, run.start.shapes, config.optim.factory, run.start.tuning)
        saved = SavedRun(run.folder, run.record.recipe, steps.num_steps, steps.per_epoch)
        checkpointer = Checkpointer(saved, config.checkpoint, store, metrics, file, logger_sink.write)
        policy.checkpoints = checkpointer
        callbacks = in_order(run, metrics, checkpointer, samples, loggers, engine.callbacks)
        watch = make_hang_watch(run, lambda: _kill_children(trainer))
        if watch is not None:
            callbacks.insert(0, watch)
        trainer = make_trainer(
            engine.strategy,
            engine.precision,
            replace(config.trainer, val_every_steps=steps.val_every_steps),
            [*callbacks, _record_startup(run.record, store, callbacks)],
            loggers,
            run.folder.path,
        )
        tuner = InstructionTuner(
            model,
            config.optim,
            num_steps=steps.num_steps,
            seed=config.seed,
            guard=policy.guard,
            tuning=run.start.tuning,
        )
        engine.strategy.store = store
        shutdown.at_last.append(lambda stop: _kill_children(trainer))
        with _children_of(trainer, config), watch.watching() if watch else nullcontext():
            trainer.fit(tuner, datamodule=steps.module, ckpt_path=run.folder.checkpoint(run.start.step))
        shutdown.deferred = False
        stop = consensus.agreed_stop or (signal_of(shutdown.urgency) if shutdown.urgency else None)
        if stop and global_rank() == 0:  # others have nothing left to do
            message = "stopped after the last step, which is saved; rerun the command to release the model"
            raise StoppedBySignal(message, stop, agreed=True)


def _open_sinks(
    run: RunContext, stack: ExitStack, logger_sink: LoggerSink, loggers: Sequence[Logger]
) -> tuple[MetricsFile, list[Sink]]:
    """Rank 0's file of metrics, and all that receives their lines; ``stack`` closes them."""
    file = stack.enter_context(closing(MetricsFile(run.folder.metrics)))
    progress = stack.enter_context(TrainingProgress(run.console, run.steps.num_steps, run.start.step))
    for logger in loggers:
        logger.log_hyperparams({"config": run.config.values(), **encode(run.record.content)})
    return file, [file, progress, logger_sink]


def _record_startup(record: RunRecord, store: CheckpointStore, before: Sequence[L.Callback]) -> L.Callback:
    """Records how long startup took until the first step.

    Args:
        before: callbacks that run before it, such as the one that answers samples.
    """

    def show(*_: object) -> None:
        if global_rank() != 0:
            return
        age = process_age_seconds()
        until = {} if age is None else {"until_first_step": age}
        samples = sum(one.seconds for one in before if isinstance(one, SampleAnswers))
        record.add_seconds(load=store.load_seconds, samples=samples, **until)

    return LambdaCallback(on_train_start=show)


@contextmanager
def _children_of(trainer: L.Trainer, config: Config) -> Iterator[None]:
    """Ends the processes that Lightning launched from this one, however this one ends."""
    try:
        yield
    except StoppedBySignal as stop:
        if stop.agreed:
            _wait_for_children(trainer)
        else:  # they may be waiting for this process
            _kill_children(trainer)
        raise
    except torch.OutOfMemoryError as out_of_memory:
        _kill_children(trainer)
        error = GalpacaError(
            "GPU out of memory",
            where=f"batch.max_tokens={config.batch.max_tokens}",
            why=str(out_of_memory).splitlines()[0],
            fix="try one of these, cheapest first (this run can be resumed with them, unless they say otherwise):\n"
            + "\n".join(
                f"  {number}. {one}"
                for number, one in enumerate(memory_advice(config, fast_attention=config.fast_attention), start=1)
            ),
        )
        error.of_one_rank = True  # its micro-batches are not those of the others
        raise error from None
    except BaseException as error:
        _kill_children(trainer)
        if what := undeterministic_operation(error):
            raise GalpacaError(
                f"{what} cannot add in the same order every time",
                where="compute.deterministic",
                fix="compute.deterministic=false (this run can be resumed with it)",
            ) from None
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
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
