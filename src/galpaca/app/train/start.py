"""Starts a run: locks its folder, compares it with what was started there, and writes the record."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.output import losses
from galpaca.app.prepared.weights import LocalModel
from galpaca.app.train.context import RunContext
from galpaca.app.train.data import PreparedData
from galpaca.app.train.data_facts import example_counts
from galpaca.data.histograms import histograms
from galpaca.data.plan import summarize
from galpaca.errors import StoppedBySignal
from galpaca.files.atomic import replace_file
from galpaca.files.build_once import no_empty_folders
from galpaca.runs.early_stopping import stops_early
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import StepLine
from galpaca.runs.lock import locked
from galpaca.runs.metrics import read_metrics, truncate_metrics
from galpaca.runs.provenance import command_line, git_state, utc_now, versions
from galpaca.runs.recipe import make_recipe
from galpaca.runs.record import RunRecord
from galpaca.runs.record_fields import Histograms, Outcome, PlanFigures, Start
from galpaca.runs.shutdown import Shutdown


@contextmanager
def run_lock(folder: RunFolder) -> Iterator[None]:
    """Creates and locks the run folder on rank 0; removes it again if the run did not start.

    Raises:
        InputError: it cannot be written, or another process is using it.
    """
    if global_rank() != 0:
        yield
        return
    with no_empty_folders(folder.path.parent):
        folder.create()
        with locked(folder.lock):
            try:
                yield
            finally:
                if not folder.record.exists():
                    folder.discard()


def open_record(
    folder: RunFolder, config: Config, data: PreparedData, local: LocalModel, id_variable: str | None = None
) -> tuple[RunRecord, list[str]]:
    """The run's record, new or existing, and the changes of its recipe since it was started.

    Args:
        id_variable: environment variable with the id that the run must have.

    Raises:
        InputError: the run was started with another recipe, data or base model, and the change is not accepted; or
            under another id.
    """
    record = RunRecord(folder.record)
    if id_variable is not None:
        record.take_id(os.environ[id_variable], id_variable)
    keeps_base = config.tuning.method.keeps_base
    recipe = make_recipe(
        config.recipe_values(),
        data=data.fingerprint,
        tokenizer=data.tokenizer.fingerprint,
        base=local.fingerprint() if keeps_base else None,
        former_data=data.former_fingerprint,
    )
    return record, record.take_recipe(recipe, accept_changes=config.run.accept_changes)


def finished(folder: RunFolder, record: RunRecord, config: Config, num_steps: int) -> bool:
    """Whether there is nothing left to train or to release."""
    if record.content.unreleased or not folder.has_all(config.released_folders):
        return False
    return folder.last_saved_step() == num_steps or stops_early(folder, config.trainer.early_stopping_patience)


def write_start(run: RunContext, resolved_yaml: str, local: LocalModel, changes: Sequence[str]) -> None:
    """Writes the record and configuration before the first step.

    Args:
        resolved_yaml: the configuration as text.
        changes: recipe changes that the user accepted.
    """
    if global_rank() != 0:
        return
    folder, record, steps = run.folder, run.record, run.steps
    for lines in (folder.metrics, folder.non_finite, folder.samples):
        truncate_metrics(lines, run.start.step)
    replace_file(folder.config, resolved_yaml)
    if not run.start.step or run.start.tuning.keeps_base:  # which may have moved since, and is needed for a release
        record.set(weights=local.facts())
    data = steps.module.data
    lengths, num_targets = data.examples.lengths[data.train], data.examples.num_targets[data.train]
    record.update(
        receipt=asdict(data.examples.receipt),
        examples=example_counts(data),
        plan=PlanFigures(**summarize(steps.module.train_plan(steps.num_ranks), steps.num_steps)),
        whole_plan=_whole_plan(run),
        parameters=run.start.num_parameters,
        early_stop_step=None,
        unreleased=True,
        histograms=Histograms(**histograms(lengths, num_targets)),
    )
    start = Start(
        time=utc_now(),
        command=command_line(),
        step=run.start.step,
        versions=versions(),
        git=git_state(Path(__file__).parent),
        setup=dict(_describe(run)),  # a fallback must not be on the terminal alone
        host=socket.gethostname(),
        slurm_job=os.environ.get("SLURM_JOB_ID"),
        accepted_changes=tuple(changes),
    )
    record.add_start(start)


@contextmanager
def record_outcome(record: RunRecord, shutdown: Shutdown) -> Iterator[None]:
    """Records in ``run.json`` how the run ended; exceptions propagate."""
    shutdown.at_last.append(lambda stop: note_end(record, "stopped", str(stop)))
    try:
        yield
    except StoppedBySignal as stop:
        note_end(record, "stopped", str(stop))
        raise
    except BaseException as error:
        note_end(record, "failed", getattr(error, "what", f"{type(error).__name__}: {error}").partition("\n")[0])
        raise
    note_end(record, "complete", "")


def note_end(record: RunRecord, how: Outcome, why: str) -> None:
    """Records how the run ended, on rank 0."""
    if global_rank() == 0:
        with suppress(OSError):  # a full disk, which the run itself has reported
            record.end_start(how, why, losses())


def _whole_plan(run: RunContext) -> PlanFigures | None:
    """The plan of the whole run that is being rehearsed, if any."""
    if run.config.trainer.longest_steps is None:
        return None
    module = run.steps.module
    return PlanFigures(**summarize(module.whole_plan(run.steps.num_ranks), module.num_whole_steps))


def _describe(run: RunContext) -> list[tuple[str, str]]:
    """Label and value of each line that describes the run, for the terminal and the record; no label comes twice."""
    config, steps, start = run.config, run.steps, run.start
    machine = f"{config.trainer.num_ranks} x {config.trainer.accelerator}"
    strategy = config.strategy.factory.name
    weights = config.model.path or "random weights"
    return [
        ("folder", str(run.folder.path)),
        ("model", f"{start.num_parameters:,} parameters, {weights}"),
        *([("trained", f"{start.num_trained:,}")] if start.num_trained < start.num_parameters else []),
        ("tuning", start.tuning.describe()),
        ("steps", f"{steps.num_steps:,}, {config.batch.examples:,} examples each, {steps.per_epoch:,} per epoch"),
        *_notes(run),
        *([("resuming", f"after step {start.step:,}")] if start.step else []),
        ("machine", f"{machine}, {strategy}, {config.precision.name}"),
        ("optimizer", config.optim.factory.describe()),
        ("dropout", f"{config.model.dropout}, attention {config.model.attention_dropout}"),
        ("attention", _attention(config)),
        ("layers", _layers(config)),
    ]


# Of a rank in a step: below, most of its time goes into exchanging gradients.
_FEW_EXAMPLES = 4
# A learning rate such as Alpaca's moves a model little in fewer.
_FEW_STEPS = 100


def _notes(run: RunContext) -> list[tuple[str, str]]:
    """What a person may not have meant of the steps."""
    config, steps, plan = run.config, run.steps, run.record.content.plan
    rows = []
    sweep = os.environ.get("WANDB_SWEEP_ID")
    if sweep and os.environ.get("WANDB_RUN_ID") == run.record.content.id:
        rows.append(("sweep", f"{sweep}, as run {run.record.content.id}"))
    per_rank = config.batch.examples / config.trainer.num_ranks
    if config.trainer.num_ranks > 1 and per_rank < _FEW_EXAMPLES:
        how = "fewer ranks take hardly longer; so would more batch.examples, which is another recipe"
        rows.append(("few examples", f"{per_rank:.3g} a rank in each step are too few to keep it busy; {how}"))
    if advice := run.start.tuning.lr_advice(config.optim.lr):
        rows.append(("warning", advice))
    if steps.num_steps < _FEW_STEPS and config.trainer.max_steps is None and config.trainer.longest_steps is None:
        how = "a smaller batch.examples, or a larger trainer.max_epochs or optim.lr"
        rows.append(("few steps", f"{steps.num_steps:,} may be too few to learn from; {how}"))
    if run.record.is_new and run.start.step:
        lost = "checkpoints without a run.json: what ran before, on what and for how long, is lost, as is its W&B run"
        rows.append(("lost record", lost))
    if lost_steps := run.start.step - _num_recorded(run):
        rows.append(("lost figures", f"{run.folder.metrics} lacks {lost_steps:,} of {run.start.step:,} steps"))
    if plan is not None and plan.steps_without_target:
        rows.append(("without a target", f"{plan.steps_without_target:,} steps, which change nothing"))
    return rows


def _num_recorded(run: RunContext) -> int:
    """Steps up to that of the checkpoint which have a line."""
    lines = read_metrics(run.folder.metrics) if run.start.step else ()
    return len({line.step for line in lines if isinstance(line, StepLine) and line.step <= run.start.step})


def _attention(config: Config) -> str:
    from galpaca.model.attention import OLDEST_CAPABILITY, gpu_is_too_old

    if config.fast_attention:
        return "all examples in one kernel"
    slow = "one example at a time"
    if config.trainer.accelerator == "gpu" and gpu_is_too_old():
        slow += f": this GPU's compute capability is below {'.'.join(map(str, OLDEST_CAPABILITY))}"
    return slow


def _layers(config: Config) -> str:
    compiled = config.compute.compiles(config.fast_attention)
    recomputed = config.compute.activation_checkpointing
    return f"{'compiled' if compiled else 'not compiled'}; activation checkpointing: {recomputed}"
