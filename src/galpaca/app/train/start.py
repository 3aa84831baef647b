"""Starts a run: locks its folder, compares it with what was started there, and writes the record."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.prepared.weights import LocalModel
from galpaca.app.train.data import PreparedData, Steps
from galpaca.data.histograms import histograms
from galpaca.data.plan import summarize
from galpaca.errors import Problems, StoppedBySignal
from galpaca.files.atomic import replace_file
from galpaca.files.checksums import FileFacts, file_facts
from galpaca.model.opt import open_weights
from galpaca.model.tuning.full import FullTuning
from galpaca.runs.checkpoints import Manifest, damage, point_to, read_manifest, set_aside
from galpaca.runs.folder import RunFolder
from galpaca.runs.lock import locked
from galpaca.runs.metrics import cut_metrics
from galpaca.runs.record import RunRecord, command_line, git_state, recipe_differences, versions
from galpaca.training.optimizers.saved import check_saved_state

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import OPTConfig

    from galpaca.model.tensors import Shapes, TensorSource


@contextmanager
def run_lock(folder: RunFolder) -> Iterator[None]:
    """Creates and locks the run folder on rank 0; removes it again if the run did not start.

    Raises:
        InputError: it cannot be written, or another process is using it.
    """
    if global_rank() != 0:
        yield
        return
    made = [path for path in folder.path.parents if not path.exists()]
    folder.create()
    with locked(folder.lock):
        try:
            yield
        finally:
            if not folder.record.exists():
                folder.discard()
                with suppress(OSError):  # something else came to be in there
                    for path in made:
                        path.rmdir()


def open_record(folder: RunFolder, config: Config, data: PreparedData) -> tuple[RunRecord, list[str]]:
    """The run's record, new or existing, and the changes of its recipe since it was started.

    Raises:
        InputError: the run was started with a different recipe or different data, and the change is not accepted.
    """
    record = RunRecord(folder.record)
    recipe = config.recipe() | {
        "data.fingerprint": data.fingerprint,
        "tokenizer.fingerprint": data.tokenizer.fingerprint,
    }
    changes = record.check_recipe(recipe, accept_changes=config.run.accept_changes)
    if changes:
        record.content["former_recipes"] = [*record.content.get("former_recipes", []), record.content["recipe"]]
    record.content["recipe"] = json.loads(json.dumps(recipe))  # as checkpoints keep it
    return record, changes


def finished(folder: RunFolder, num_steps: int) -> bool:
    return folder.model.is_dir() and folder.last_saved_step() == num_steps


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        step: step of the checkpoint; 0 for the initial weights.
        weights: the initial weights, unless a checkpoint has all that the model needs.
        shapes: shapes of the model's parameters.
        tuning: which of them are trained.
    """

    step: int
    weights: TensorSource | None
    shapes: Shapes
    tuning: FullTuning

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def num_trained(self) -> int:
        return sum(math.prod(shape) for shape in self.tuning.trained_shapes(self.shapes).values())


def choose_starting_point(
    folder: RunFolder,
    record: RunRecord,
    config: Config,
    local: LocalModel,
    model_config: OPTConfig,
    shapes: Shapes,
    tuning: FullTuning,
    console: Console,
) -> StartingPoint:
    """The newest intact checkpoint, or the initial weights.

    Raises:
        InputError: all checkpoints are damaged, or the newest one belongs to another run; or the weights are damaged
            or cannot be read.
    """
    step = _newest_whole(folder, record, config, console) if global_rank() == 0 else folder.last_saved_step()
    # What is not trained is in no checkpoint.
    if step and tuning.trained_shapes(shapes) == shapes:
        return StartingPoint(step, None, shapes, tuning)
    if global_rank() == 0:
        local.verify()
    return StartingPoint(step, open_weights(local.spec, model_config, shapes, config.seed), shapes, tuning)


def _newest_whole(folder: RunFolder, record: RunRecord, config: Config, console: Console) -> int:
    """Rank 0 verifies all files and sets damaged checkpoints aside; other ranks later learn its choice."""
    folder.remove_partial()
    steps = folder.saved_steps()
    damaged: list[tuple[Path, list[str]]] = []
    for step in reversed(steps):
        checkpoint = folder.checkpoint(step)
        if found := damage(checkpoint):
            damaged.append((checkpoint, found))
            continue
        for path, reasons in damaged:
            console.print(
                f"[yellow]warning:[/yellow] damaged checkpoint moved to {set_aside(path)}: {'; '.join(reasons)}"
            )
            console.print(f"  resuming from the previous checkpoint, step {step}")
        point_to(checkpoint)
        manifest = read_manifest(checkpoint)
        if not config.run.accept_changes:
            _check_belongs(folder, manifest, record)
        check_saved_state(checkpoint, manifest.optimizer, config.optim.factory)
        return step
    problems = Problems()
    for path, reasons in damaged:
        problems.add("; ".join(reasons), where=path, fix=f"restore it, or rm -r {folder.checkpoints} to start over")
    problems.raise_any()
    return 0


def _check_belongs(folder: RunFolder, manifest: Manifest, record: RunRecord) -> None:
    problems = Problems()
    ours = [record.content["recipe"], *record.content.get("former_recipes", [])]
    if manifest.recipe not in ours:
        problems.add(
            "the checkpoint was saved with a different recipe or different data",
            where=folder.checkpoint(manifest.step),
            why="; ".join(recipe_differences(manifest.recipe, ours[0])),
            fix="move it away to resume from the previous one, or accept it with run.accept_changes=true",
        )
    if _metrics_facts(folder, manifest) != manifest.metrics:
        problems.add(
            f"the lines up to step {manifest.step} have changed since that checkpoint was saved",
            where=folder.metrics,
            why="its metrics may be wrong",
            fix="restore the file; run.accept_changes=true goes on without the lines that cannot be read",
        )
    problems.raise_any()


def _metrics_facts(folder: RunFolder, manifest: Manifest) -> FileFacts | None:
    """Checksum of the lines that the checkpoint covers; None if the file is gone."""
    return file_facts(folder.metrics, manifest.metrics.bytes) if folder.metrics.is_file() else None


def write_start(
    folder: RunFolder,
    record: RunRecord,
    resolved_yaml: str,
    local: LocalModel,
    data: PreparedData,
    steps: Steps,
    begin: StartingPoint,
    changes: Sequence[str],
    setup: Mapping[str, str],
) -> None:
    """Writes the record and configuration before the first step.

    Args:
        setup: how this start computes, as the terminal shows it: a fallback must not be on the terminal alone.
        changes: recipe changes that the user accepted.
    """
    if global_rank() != 0:
        return
    for lines in (folder.metrics, folder.non_finite, folder.samples):
        cut_metrics(lines, begin.step)
    replace_file(folder.config, resolved_yaml)
    if not begin.step:
        record.content["weights"] = local.facts()
    record.update(
        receipt=data.examples.receipt.to_dict(),
        examples={"train": len(data.train_indices), "validation": len(data.val_indices)},
        plan=summarize(steps.module.train_plan(steps.num_ranks), steps.num_steps),
        **_whole_plan(steps),
        parameters=begin.num_parameters,
        histograms=histograms(data.examples.lengths[data.train_indices], data.examples.num_targets[data.train_indices]),
    )
    git = git_state(Path(__file__).parent)
    accepted = {"accepted_changes": list(changes)} if changes else {}
    job = {"slurm_job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
    place = {"host": socket.gethostname(), **job}
    record.add_start(
        command=command_line(), step=begin.step, versions=versions(), git=git, setup=dict(setup), **place, **accepted
    )


@contextmanager
def record_outcome(record: RunRecord) -> Iterator[None]:
    """Records in ``run.json`` how the run ended; exceptions propagate."""
    try:
        yield
    except StoppedBySignal as stop:
        _note_end(record, "stopped", str(stop))
        raise
    except BaseException as error:
        _note_end(record, "failed", getattr(error, "what", f"{type(error).__name__}: {error}").partition("\n")[0])
        raise
    _note_end(record, "complete", "")


def _note_end(record: RunRecord, how: str, why: str) -> None:
    if global_rank() == 0:
        with suppress(OSError):  # a full disk, of which the run itself has told
            record.end_start(how, why)


def _whole_plan(steps: Steps) -> dict[str, Any]:
    """The plan of the whole run that is being rehearsed, if any."""
    if steps.module.longest is None:
        return {}
    module = steps.module
    return {"whole_plan": summarize(module.whole_plan(steps.num_ranks), module.num_whole_steps)}


def describe(config: Config, folder: RunFolder, steps: Steps, begin: StartingPoint) -> list[tuple[str, str]]:
    """Label and value of each line that describes the run, for the terminal."""
    machine = f"{config.trainer.num_ranks} x {config.trainer.accelerator}"
    strategy = str(config.strategy["_target_"]).rsplit(".", 1)[-1]
    weights = config.model.path or "random weights"
    return [
        ("folder", str(folder.path)),
        ("model", f"{begin.num_parameters:,} parameters, {weights}"),
        *([("trained", f"{begin.num_trained:,}")] if begin.num_trained < begin.num_parameters else []),
        ("steps", f"{steps.num_steps:,}, {config.batch.examples:,} examples each, {steps.per_epoch:,} per epoch"),
        *([("resuming", f"after step {begin.step:,}")] if begin.step else []),
        ("machine", f"{machine}, {strategy}, {config.precision.name}"),
        ("optimizer", config.optim.factory.describe()),
        ("dropout", f"{config.model.dropout}, attention {config.model.attention_dropout}"),
        ("attention", "all examples in one kernel" if config.fast_attention else "one example at a time"),
        ("layers", _layers(config)),
    ]


def _layers(config: Config) -> str:
    compiled = config.compute.compiles(config.fast_attention)
    recomputed = config.compute.activation_checkpointing
    return f"{'compiled' if compiled else 'not compiled'}; activation checkpointing: {recomputed}"
