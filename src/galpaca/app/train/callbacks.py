"""The callbacks of a training run, in the order in which they must act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from galpaca.app.cluster.on_hang import end_hung_run
from galpaca.app.cluster.slurm import decide
from galpaca.app.config.schema import Config
from galpaca.app.train.data import Steps
from galpaca.app.train.instantiate import peak_flops
from galpaca.app.train.samples import Samples
from galpaca.app.train.start import StartingPoint
from galpaca.model.opt import architecture_of
from galpaca.runs.checkpoints import Retention
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import MetricsFile, append_lines, read_metrics, training_losses, validation_losses
from galpaca.runs.spikes import LossSpikes

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from transformers import OPTConfig

    from galpaca.training.callbacks.metrics import Sink, StepMetrics
    from galpaca.training.checkpoints.callback import Checkpointer
    from galpaca.training.checkpoints.store import CheckpointStore
    from galpaca.training.consensus import Consensus
    from galpaca.training.guard import NonFinitePolicy


def make_policy(config: Config, folder: RunFolder, steps: Steps) -> NonFinitePolicy:
    """The policy for steps whose loss or gradient is not finite."""
    from galpaca.training.guard import NonFinitePolicy

    return NonFinitePolicy(
        config.guard,
        record=lambda line: append_lines(folder.non_finite, [line]),
        example_of=lambda i: int(steps.module.train_indices[i]),
    )


def make_metrics(
    config: Config,
    folder: RunFolder,
    steps: Steps,
    model_config: OPTConfig,
    sinks: Sequence[Sink],
    consensus: Consensus,
    policy: NonFinitePolicy,
) -> StepMetrics:
    """The figures of every step."""
    from galpaca.training.callbacks.metrics import StepMetrics
    from galpaca.training.speed import StepSpeed

    return StepMetrics(
        sinks,
        consensus,
        steps_per_epoch=steps.per_epoch,
        speed=StepSpeed(architecture_of(model_config), peak_flops(config)),
        policy=policy,
        spikes=LossSpikes(config.guard.spike_factor, training_losses(folder.metrics)),
    )


def make_checkpointer(
    config: Config,
    folder: RunFolder,
    steps: Steps,
    recipe: Mapping[str, Any],
    store: CheckpointStore,
    metrics: StepMetrics,
    file: MetricsFile | None,
    sinks: Sequence[Sink],
) -> Checkpointer:
    """Takes checkpoints during training, commits them and removes old ones.

    Args:
        sinks: receive what each checkpoint cost.
    """
    from galpaca.training.checkpoints.callback import Cadence, Checkpointer

    saving = config.checkpoint

    def tell(figures: Mapping[str, float]) -> None:
        for sink in sinks:
            sink.write([dict(figures)])

    return Checkpointer(
        folder,
        store,
        metrics.consensus,
        metrics,
        file,
        num_steps=steps.num_steps,
        cadence=Cadence(saving.every_steps, saving.every_minutes, steps.per_epoch if saving.every_epoch else None),
        retention=Retention(saving.keep_last, saving.keep_every, saving.keep_best),
        asynchronous=saving.asynchronous,
        recipe=recipe,
        shapes=store.saved_shapes,
        tell=tell,
    )


def in_order(
    config: Config,
    folder: RunFolder,
    steps: Steps,
    begin: StartingPoint,
    metrics: StepMetrics,
    checkpointer: Checkpointer,
    samples: Samples | None,
    loggers: Sequence[Logger],
    further: Sequence[L.Callback],
) -> list[L.Callback]:
    """All callbacks: the hang watch sees each event first, and metrics come before the checkpoint that needs them.

    Args:
        further: the configuration's own, before the metrics, which take their figures.
    """
    from galpaca.training.callbacks.preemption import PreemptionNotice
    from galpaca.training.callbacks.validation import MissedValidation

    missed = MissedValidation(_validation_is_missing(folder, steps, begin.step, val_every_steps(config, steps)))
    notice = PreemptionNotice(lambda number: decide(number).job is not None)
    answers = [] if samples is None else [_sample_answers(config, folder, steps, samples, metrics, loggers)]
    return [*_hang_watch(config, folder), *further, metrics, checkpointer, missed, *answers, notice]


def val_every_steps(config: Config, steps: Steps) -> int:
    return config.trainer.val_every_steps or steps.per_epoch


def _hang_watch(config: Config, folder: RunFolder) -> list[L.Callback]:
    from galpaca.training.callbacks.hang import HangWatch

    minutes = config.hang.minutes
    return [] if minutes is None else [HangWatch(folder.stacks, 60 * minutes, end_hung_run(config, folder))]


def _validation_is_missing(folder: RunFolder, steps: Steps, step: int, every_steps: int) -> bool:
    """Whether the validation of the step to resume from is due but missing."""
    is_due = step > 0 and (step % every_steps == 0 or step == steps.num_steps)
    return is_due and bool(len(steps.module.val_indices)) and step not in validation_losses(folder.metrics)


def _sample_answers(
    config: Config,
    folder: RunFolder,
    steps: Steps,
    samples: Samples,
    metrics: StepMetrics,
    loggers: Sequence[Logger],
) -> L.Callback:
    from galpaca.training.callbacks.samples import SampleAnswers

    return SampleAnswers(
        samples.prompts,
        end_id=samples.tokenizer.eos_id,
        max_new_tokens=config.samples.max_new_tokens,
        max_positions=samples.max_positions,
        every_steps=config.samples.every_steps or steps.per_epoch,
        num_steps=steps.num_steps,
        known={line["step"] for line in read_metrics(folder.samples)},
        metrics=metrics,
        tell=partial(samples.write, folder, loggers),
    )
