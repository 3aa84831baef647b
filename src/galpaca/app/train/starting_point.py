"""Where a run starts: at its newest whole checkpoint, or with the weights it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.prepared.weights import LocalModel
from galpaca.app.train.context import OpenedRun, StartingPoint
from galpaca.errors import InputError, Problems
from galpaca.files.checksums import file_facts
from galpaca.model.build import open_weights, parameter_shapes
from galpaca.runs.checkpoints import Manifest, newest_whole, point_to, read_manifest, set_aside
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord
from galpaca.training.optimizers.saved import check_saved_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose_starting_point(run: OpenedRun, num_steps: int, local: LocalModel, model: PreTrainedModel) -> StartingPoint:
    """The newest intact checkpoint, or the initial weights.

    Args:
        num_steps: of the plan.
        model: on the meta device; has the shapes of its parameters.

    Raises:
        InputError: all checkpoints are damaged, or the newest one belongs to another run or a longer plan; or the
            weights are damaged or cannot be read.
    """
    step = _newest_whole(run, num_steps) if global_rank() == 0 else run.folder.last_saved_step()
    tuning = run.config.tuning.method
    base_shapes = parameter_shapes(model)
    shapes = tuning.shapes(base_shapes)
    # What is not trained is in no checkpoint.
    if step and tuning.trained_shapes(shapes) == shapes:
        return StartingPoint(step, None, base_shapes, shapes, tuning)
    if global_rank() == 0:
        local.verify()
    seed = run.config.seed
    base = open_weights(local.spec, tuning.family, model.config, base_shapes, seed)
    weights = tuning.starting_weights(base, seed)
    return StartingPoint(step, weights, base_shapes, shapes, tuning)


def _newest_whole(run: OpenedRun, num_steps: int) -> int:
    """Rank 0 verifies all files and sets damaged checkpoints aside; other ranks later learn its choice."""
    folder, config = run.folder, run.config
    folder.remove_partial()
    step, damaged = newest_whole(folder)
    if not step:
        with Problems() as problems:
            for path, reasons in damaged.items():
                fix = f"restore it, or rm -r {folder.checkpoints} to start over"
                problems.add("; ".join(reasons), where=path, fix=fix)
        return 0
    for path, reasons in damaged.items():
        moved = f"damaged checkpoint moved to {set_aside(path)}: {'; '.join(reasons)}"
        run.console.print(f"[yellow]warning:[/yellow] {moved}")
        run.console.print(f"  resuming from the previous checkpoint, step {step}")
    checkpoint = folder.checkpoint(step)
    point_to(checkpoint)
    manifest = read_manifest(checkpoint)
    if not config.run.accept_changes:
        _check_belongs(folder, manifest, run.record)
    check_saved_state(checkpoint, manifest.optimizer, config.optim.factory)
    if step > num_steps:
        within = [one for one in folder.saved_steps() if one <= num_steps]
        export = f"galpaca export {folder.path}@{within[-1]} FOLDER releases step {within[-1]:,}; or " if within else ""
        raise InputError(
            f"the newest checkpoint is after step {step:,}, but the plan has {num_steps:,} steps",
            where=checkpoint,
            fix=f"{export}run.name=ANOTHER trains a run of {num_steps:,} steps",
        )
    return step


def _check_belongs(folder: RunFolder, manifest: Manifest, record: RunRecord) -> None:
    covered = file_facts(folder.metrics, manifest.metrics.bytes) if folder.metrics.is_file() else None
    with Problems() as problems:
        if not record.had_recipe(manifest.recipe):
            problems.add(
                "the checkpoint was saved with a different recipe or different data",
                where=folder.checkpoint(manifest.step),
                why="; ".join(record.recipe.changes_since(manifest.recipe)),
                fix="move it away to resume from the previous one, or accept it with run.accept_changes=true",
            )
        if covered != manifest.metrics:
            problems.add(
                f"the lines up to step {manifest.step} have changed since that checkpoint was saved",
                where=folder.metrics,
                why="its metrics may be wrong",
                fix="restore the file; run.accept_changes=true continues without the lines that cannot be read",
            )
