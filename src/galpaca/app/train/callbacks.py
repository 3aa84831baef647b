"""The callbacks of a training run, in the order in which they must act."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import lightning as L
from lightning.pytorch.loggers import Logger
from transformers import PreTrainedConfig

from galpaca.app.cluster.on_hang import end_hung_run
from galpaca.app.cluster.ranks import global_rank
from galpaca.app.cluster.slurm import decide
from galpaca.app.train.context import RunContext
from galpaca.app.train.instantiate import peak_flops
from galpaca.app.train.samples import Samples
from galpaca.app.train.start import note_end
from galpaca.estimate.flops import Tuned
from galpaca.runs.early_stopping import stops_early
from galpaca.runs.history import read_samples
from galpaca.runs.metrics import append_lines, training_losses, validation_losses
from galpaca.runs.spikes import LossSpikes
from galpaca.training.callbacks.early_stopping import EarlyStopping
from galpaca.training.callbacks.hang import HangWatch
from galpaca.training.callbacks.metrics import Sink, StepMetrics
from galpaca.training.callbacks.preemption import PreemptionNotice
from galpaca.training.callbacks.samples import SampleAnswers
from galpaca.training.callbacks.validation import MissedValidation
from galpaca.training.checkpoints.callback import Checkpointer
from galpaca.training.consensus import Consensus
from galpaca.training.non_finite.policy import NonFinitePolicy
from galpaca.training.step_line import StepSpeed


def make_policy(run: RunContext) -> NonFinitePolicy:
    """The policy for steps whose loss or gradient is not finite."""
    train = run.steps.module.data.train
    return NonFinitePolicy(
        run.config.guard,
        record=lambda line: append_lines(run.folder.non_finite, [line]),
        example_of=lambda i: int(train[i]),
    )


def make_metrics(
    run: RunContext,
    model_config: PreTrainedConfig,
    sinks: Sequence[Sink],
    consensus: Consensus,
    policy: NonFinitePolicy,
) -> StepMetrics:
    """The figures of every step."""
    tuned = Tuned(run.start.tuning.flops_per_weight, run.start.num_added)
    return StepMetrics(
        sinks,
        consensus,
        steps_per_epoch=run.steps.per_epoch,
        speed=StepSpeed(run.start.tuning.family.architecture(model_config), peak_flops(run.config), tuned),
        policy=policy,
        spikes=LossSpikes(run.config.guard.spike_factor, training_losses(run.folder.metrics)),
    )


def in_order(
    run: RunContext,
    metrics: StepMetrics,
    checkpointer: Checkpointer,
    samples: Samples | None,
    loggers: Sequence[Logger],
    further: Sequence[L.Callback],
) -> list[L.Callback]:
    """All but the hang watch, which sees each event first. Metrics come before the checkpoint that needs them.

    Args:
        further: the configuration's own, before the metrics, which take their figures.
    """
    missed = MissedValidation(_validation_is_missing(run))
    notice = PreemptionNotice(lambda number: decide(number).job is not None)
    patience = run.config.trainer.early_stopping_patience
    early = [] if patience is None else [EarlyStopping(partial(stops_early, run.folder, patience), checkpointer)]
    answers = [] if samples is None else [_sample_answers(run, samples, metrics, loggers)]
    return [*further, metrics, checkpointer, missed, *early, *answers, notice]


def make_hang_watch(run: RunContext, kill_children: Callable[[], None]) -> HangWatch | None:
    """What ends the run where it hangs; None where nothing does.

    Args:
        kill_children: ends the ranks that were launched from this one.
    """
    minutes = run.config.hang.minutes
    if minutes is None:
        return None
    end_job = end_hung_run(run.config, run.folder)

    def end(verdict: str) -> None:
        note_end(run.record, "failed", verdict)
        kill_children()
        end_job(verdict)

    return HangWatch(run.folder.stacks, 60 * minutes, global_rank(), end)


def _validation_is_missing(run: RunContext) -> bool:
    """Whether the validation of the step to resume from is due but missing."""
    step, steps = run.start.step, run.steps
    is_due = step > 0 and (step % steps.val_every_steps == 0 or step == steps.num_steps)
    return is_due and bool(len(steps.module.data.val)) and step not in validation_losses(run.folder.metrics)


def _sample_answers(run: RunContext, samples: Samples, metrics: StepMetrics, loggers: Sequence[Logger]) -> L.Callback:
    spec = run.config.samples
    return SampleAnswers(
        samples.encoded,
        replace(spec, every_steps=spec.every_steps or run.steps.per_epoch),
        known={line.step for line in read_samples(run.folder.samples)},
        metrics=metrics,
        write=partial(samples.write, run.folder, loggers),
    )
