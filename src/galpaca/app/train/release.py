"""From a run folder to a released model, at the end of training and for ``galpaca export``."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers import PreTrainedConfig

from galpaca.app.cluster.ranks import global_rank, local_rank
from galpaca.app.console import counting
from galpaca.app.train.card import card_facts, figures_of
from galpaca.app.train.context import RunContext
from galpaca.app.train.data import PreparedData
from galpaca.app.train.data_facts import joint_license, joint_terms, source_facts
from galpaca.app.train.merged_losses import merged_losses
from galpaca.app.train.trained_model import TrainedModel, open_model
from galpaca.data.asked import asked
from galpaca.data.spec import DataSpec
from galpaca.errors import InputError
from galpaca.release.adapter import AdapterSettings, export_adapter
from galpaca.release.base import Base, save_base
from galpaca.release.card import model_card
from galpaca.release.export import SHARD_BYTES, ExportFormat, export
from galpaca.runs.checkpoints import best_saved_step
from galpaca.runs.early_stopping import stops_early
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import total_memory_bytes
from galpaca.runs.provenance import processor_name
from galpaca.runs.recipe import BASE
from galpaca.runs.record_fields import Machine, ReleaseFacts
from galpaca.training.specs import TrainerSpec

# Records that are looked at for the card's example, and its most characters.
_LOOKED_AT, _CARD_TEXT = 50, 160


@dataclass(frozen=True)
class ReleaseSettings:
    """What to release, and where.

    Attributes:
        out: output folder.
        model_path: the folder or Hub id that the card's code snippet uses.
        dtype: dtype of the weights on disk.
        max_new_tokens: default ``max_new_tokens`` of the model.
        shard_bytes: maximum shard size in bytes; None uses the Hub's default.
        merge_into: which weights adapters are merged into: ``trained`` or ``original``.
    """

    out: Path
    model_path: str
    dtype: str
    max_new_tokens: int
    shard_bytes: int | None = None
    merge_into: str = "trained"


def keep_for_release(run: RunContext, data: PreparedData, model_config: PreTrainedConfig) -> None:
    """Saves in the run folder, at each start, everything that a release needs besides a checkpoint."""
    if global_rank() != 0:
        return
    config = run.config
    save_base(Base(model_config, run.start.tuning.family, data.tokenizer, data.prompts), run.folder.base)
    names = {one.name: _public_names(one.spec) for one in config.data.sources if one.epochs}
    question, question_input = _example(data) if config.release.example else (None, None)
    facts = ReleaseFacts(
        question=question,
        question_input=question_input,
        dtype=config.release.dtype,
        max_new_tokens=config.release.max_new_tokens,
        base_model=_public_name(config.model.path),
        model_license=config.model.license,
        dataset=", ".join(names.values()),
        data_license=joint_license(config.data),
        terms=joint_terms(config.data),
        merge_into=config.release.merge_into if "adapter" in config.released_folders else None,
        checkpoint="best" if config.release.checkpoint == "best" else None,
        folders=() if config.released_folders == ("model",) else config.released_folders,
    )
    run.record.set(sources=source_facts(config.data, data.split, names))
    run.record.set(release=facts)
    run.record.update_start(machine=_machine(config.trainer))


def _example(data: PreparedData) -> tuple[str | None, str | None]:
    """A question that fits a card, of the first training records that are prompted as the released model is."""
    shown = data.split.train[data.in_released_form[data.split.train]]
    found = asked(data.split.examples, shown[:_LOOKED_AT].tolist(), data.tokenizer, data.template)
    turns = [one.record.turns[-1] for one in found]
    short = [one for one in turns if one.instruction and len(one.instruction) + len(one.input) <= _CARD_TEXT]
    chosen = min(short, key=lambda one: bool(one.input), default=None)
    return (None, None) if chosen is None else (chosen.instruction, chosen.input or None)


def release(run: RunContext) -> None:
    """Writes the final metrics and the released folders, on rank 0."""
    if global_rank() != 0:
        return
    folder, record, config = run.folder, run.record, run.config
    spec, started, trained = config.release, time.perf_counter(), folder.last_saved_step()
    is_early = trained < run.steps.num_steps and stops_early(folder, config.trainer.early_stopping_patience)
    record.update(final=figures_of(folder), early_stop_step=trained if is_early else None)
    step = step_to_release(folder, spec.checkpoint)
    model = open_model(folder, record, folder.checkpoint(step))
    if step != folder.last_saved_step():
        run.console.print(f"releasing step {step:,}, which has the lowest validation loss")
    if "adapter" in config.released_folders:
        if spec.merge:
            _measure_merged(run, model)
        release_adapter(model, folder.adapter, str(folder.adapter))
    if spec.merge:
        path = str(folder.model)
        settings = ReleaseSettings(folder.model, path, spec.dtype, spec.max_new_tokens, merge_into=spec.merge_into)
        release_model(model, settings, run.console)
    record.set(unreleased=None)
    record.add_seconds(release=time.perf_counter() - started)


def step_to_release(folder: RunFolder, which: str) -> int:
    """The step of the checkpoint that is released; 0 where none is saved."""
    best = best_saved_step(folder) if which == "best" else None
    return folder.last_saved_step() if best is None else best


def _measure_merged(run: RunContext, model: TrainedModel) -> None:
    on_gpu = run.config.trainer.accelerator == "gpu"
    dtype = getattr(torch, run.config.release.dtype) if on_gpu else torch.float32
    device = torch.device("cuda", local_rank()) if on_gpu else torch.device("cpu")
    try:
        losses = merged_losses(model.weights, model.base.config, run.steps.module, dtype, device)
    except torch.OutOfMemoryError:
        losses = None
        why = "the merged model does not fit on the GPU; galpaca evaluate measures it elsewhere"
        run.console.print(f"[yellow]warning:[/yellow] no validation loss of the merged model: {why}")
    run.record.update(merged=losses)


def release_model(model: TrainedModel, wanted: ReleaseSettings, console: Console) -> None:
    """Writes the folder of the whole model.

    Raises:
        InputError: as ``release.export.export``.
        GalpacaError: what was written differs from what was trained.
    """
    facts = card_facts(model, wanted.model_path, merge_into=wanted.merge_into)
    form = ExportFormat(getattr(torch, wanted.dtype), wanted.max_new_tokens, wanted.shard_bytes or SHARD_BYTES)
    source = model.weights.released(original=wanted.merge_into == "original")
    millions = 2 * facts.num_parameters // 10**6
    with counting(console, "million values written and compared", millions) as progress:
        export(source, model.base, model_card(facts), wanted.out, form, lambda values: progress(values // 10**6))


def release_adapter(model: TrainedModel, out: Path, model_path: str) -> None:
    """Writes the adapter alone, for PEFT.

    Args:
        model_path: the folder or Hub id that the card's code snippet uses.

    Raises:
        InputError: what was trained is no adapter; or as ``release.adapter.export_adapter``.
        GalpacaError: what was written differs from what was trained.
    """
    config = model.weights.method.adapter_config()
    if config is None:
        raise InputError(
            f"what was trained is no adapter: {model.weights.method.describe()}",
            where=model.folder.path,
            fix=f"galpaca export {model.folder.path} FOLDER writes the whole model",
        )
    frozen = model.record.content.weights
    revision = frozen.get("commit") or frozen.get("revision")
    # Without a commit it is no model of the Hub: a path that was relative to where training was started.
    name = frozen.get("path") if frozen.get("commit") else frozen.get("folder")
    of_base = {"base_model_name_or_path": name, "revision": revision}
    facts = card_facts(model, model_path)
    fingerprint = str(model.weights.manifest.recipe.settings[BASE])
    settings = AdapterSettings({**config, **of_base}, fingerprint, facts.max_new_tokens)
    export_adapter(model.weights.trained, settings, model.base, model_card(facts), out)


def _machine(trainer: TrainerSpec) -> Machine:
    device, memory = processor_name(), total_memory_bytes()
    if trainer.accelerator == "gpu":
        device, memory = torch.cuda.get_device_name(), int(torch.cuda.get_device_properties(0).total_memory)
    return Machine(device=device, processes=trainer.num_ranks, nodes=trainer.num_nodes, memory_bytes=memory)


def _public_names(spec: DataSpec) -> str:
    return ", ".join(_public_name(path) or "" for path in spec.paths) or spec.hub_id or ""


def _public_name(path: str | None) -> str | None:
    """A Hub id unchanged, or the last part of a path: a card must not reveal local paths."""
    if path is None:
        return None
    is_local = path.startswith(("/", ".", "~")) or path.count("/") != 1 or Path(path).exists()
    return Path(path).name if is_local else path
