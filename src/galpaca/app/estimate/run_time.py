"""How long a whole run takes, by part: from a step's seconds and assumptions of disks and starts."""

from __future__ import annotations

from galpaca.app.estimate.setting import Setting
from galpaca.estimate.duration import RunTime, checkpoints_seconds
from galpaca.training.optimizers.factory import dtype_bytes
from galpaca.training.specs import steps_between_validations

# Seconds and bytes per second that differ between machines more than anything else; nobody has measured these.
_START_SECONDS, _COMPILE_SECONDS = 45.0, 60.0
_READ_BYTES_PER_SECOND, _WRITE_BYTES_PER_SECOND, _TO_HOST_BYTES_PER_SECOND = 1.5e9, 1.0e9, 10e9
# Of an answer at least, whatever the model; and how much longer than its reads a forward of few tokens takes.
_TOKEN_SECONDS, _SLOWER_THAN_READS = 0.03, 4


def run_time(run: Setting) -> RunTime:
    """Of the whole run, by part."""
    config, steps, per_epoch = run.config, run.planned.num_steps, run.planned.plan.steps_per_epoch
    saving = config.checkpoint
    between = steps_between_validations(config.trainer, saving, per_epoch)
    count = _num_checkpoints(run)
    return RunTime(
        start=_START_SECONDS + 2.0 * run.num_parameters / _READ_BYTES_PER_SECOND,
        warm_up=_COMPILE_SECONDS if config.compute.compiles(run.fast_attention) else 0.0,
        steps=steps * run.step_seconds,
        checkpoints=checkpoints_seconds(
            count,
            steps * run.step_seconds / count,
            stall=_stall_seconds(run) if saving.asynchronous else save_seconds(run),
            write=_write_seconds(run) if saving.asynchronous else 0.0,
            last=save_seconds(run),
        ),
        validations=-(-steps // between) * _validation_seconds(run),
        samples=_samples_seconds(run),
        release=run.num_parameters * dtype_bytes(config.release.dtype) / _WRITE_BYTES_PER_SECOND,
    )


def _num_checkpoints(run: Setting) -> int:
    """By steps, epochs and minutes, and the last one."""
    saving, steps = run.config.checkpoint, run.planned.num_steps
    count = 1
    if saving.every_steps:
        count += (steps - 1) // saving.every_steps
    if saving.every_epoch:
        count += (steps - 1) // run.planned.plan.steps_per_epoch
    if saving.every_minutes:
        count = max(count, int(steps * run.step_seconds / 60 / saving.every_minutes))
    return count


def _validation_seconds(run: Setting) -> float:
    """A forward over the held-out records: a third of what a step takes for each token."""
    held_out = run.config.data.val_fraction * run.num_records
    return held_out / run.config.batch.examples * run.step_seconds / 3


def _samples_seconds(run: Setting) -> float:
    """Every token of an answer is a forward of few tokens, which reads all weights, or gathers them."""
    samples, steps = run.config.samples, run.planned.num_steps
    if samples.prompts is None:
        return 0.0
    every = samples.every_steps or run.planned.plan.steps_per_epoch
    times = 1 + -(-steps // every)  # before the first step, and after the last
    reads = run.model.weight_bytes / (run.cluster.gpu.gb_per_second * 1e9)
    each = max(_SLOWER_THAN_READS * reads, run.work.gather_seconds(), _TOKEN_SECONDS)
    return times * samples.max_new_tokens * each


def save_seconds(run: Setting) -> float:
    """Until a checkpoint is on disk: copied to the host, and written by all nodes at once."""
    return _stall_seconds(run) + _write_seconds(run)


def _stall_seconds(run: Setting) -> float:
    return run.checkpoint_bytes / run.cluster.num_ranks / _TO_HOST_BYTES_PER_SECOND


def _write_seconds(run: Setting) -> float:
    return run.checkpoint_bytes / (_WRITE_BYTES_PER_SECOND * run.cluster.num_nodes)


def written_every_steps(run: Setting) -> int | None:
    """An interval in which one checkpoint is written before the next; None where that is so."""
    every = run.config.checkpoint.every_steps
    if every is None or every * run.step_seconds >= _write_seconds(run):
        return None
    needed = 2 * _write_seconds(run) / run.step_seconds
    return min(run.planned.num_steps, -(-int(needed) // 50) * 50)
