"""The run folder at the start: claimed, compared with what was begun in it, written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from galpaca.app.config import Config
from galpaca.app.prepare import PreparedData, Steps
from galpaca.app.ranks import global_rank
from galpaca.data.plan import summarize
from galpaca.runs.folder import RunFolder, replace_file
from galpaca.runs.lock import locked
from galpaca.runs.metrics import cut_metrics
from galpaca.runs.record import RunRecord, command_line, git_state, versions

if TYPE_CHECKING:
    from transformers import OPTForCausalLM


@contextmanager
def claimed(folder: RunFolder) -> Iterator[None]:
    """The run folder, made and locked by rank 0; taken away again if nothing came of it.

    Raises:
        InputError: it cannot be written, or another process is writing in it.
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


def open_record(folder: RunFolder, config: Config, data: PreparedData) -> RunRecord:
    """The run's record, new or of the run that goes on.

    Raises:
        InputError: that run was begun with another recipe or other data.
    """
    record = RunRecord(folder.record)
    recipe = config.recipe() | {
        "data.fingerprint": data.fingerprint,
        "tokenizer.fingerprint": data.tokenizer.fingerprint,
    }
    record.check_recipe(recipe)
    record.content["recipe"] = recipe
    return record


def finished(folder: RunFolder, num_steps: int) -> bool:
    return folder.model.is_dir() and folder.saved_steps()[-1:] == [num_steps]


def write_start(
    folder: RunFolder, record: RunRecord, resolved_yaml: str, data: PreparedData, steps: Steps, model: OPTForCausalLM
) -> None:
    """Writes what is known before the first step, and clears what a killed process left behind."""
    if global_rank() != 0:
        return
    folder.remove_partial()
    first_step = folder.last_saved_step()
    cut_metrics(folder.metrics, first_step)
    replace_file(folder.config, resolved_yaml)
    record.update(
        receipt=data.examples.receipt.to_dict(),
        examples={"train": len(data.train_indices), "validation": len(data.val_indices)},
        plan=summarize(steps.module.train_plan(steps.num_ranks), steps.num_steps),
        parameters=model.num_parameters(),
    )
    record.add_start(command=command_line(), step=first_step, versions=versions(), git=git_state(Path(__file__).parent))


def describe(config: Config, folder: RunFolder, steps: Steps, model: OPTForCausalLM) -> list[tuple[str, str]]:
    """What the run is about to do, for the terminal."""
    first_step = folder.last_saved_step()
    machine = f"{config.trainer.num_ranks} x {config.trainer.accelerator}"
    strategy = str(config.strategy["_target_"]).rsplit(".", 1)[-1]
    weights = config.model.path or "random weights"
    return [
        ("folder", str(folder.path)),
        ("model", f"{model.num_parameters():,} parameters, {weights}"),
        ("steps", f"{steps.num_steps:,} of {config.batch.examples:,} examples, {steps.per_epoch:,} an epoch"),
        *([("going on", f"after step {first_step:,}")] if first_step else []),
        ("machine", f"{machine}, {strategy}, {config.precision.name}"),
        ("dropout", f"{config.model.dropout}, of attention {config.model.attention_dropout}"),
        ("attention", "all examples in one kernel" if config.fast_attention else "one example after the other"),
        ("layers", _layers(config)),
    ]


def _layers(config: Config) -> str:
    compiled = config.compute.compiles(config.fast_attention)
    how = {"none": "nothing is", "selective": "what is cheap is", "full": "whole layers are"}
    recomputed = how[config.compute.activation_checkpointing]
    return f"{'compiled' if compiled else 'not compiled'}; {recomputed} computed again in backward"
