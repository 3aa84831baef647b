"""From a run folder to a released model, at the end of training and for ``galpaca export``."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers import OPTConfig

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.console import counting
from galpaca.app.train.card import card_facts, figures_of
from galpaca.app.train.context import RunContext
from galpaca.app.train.data import PreparedData
from galpaca.app.train.data_facts import joint_license, joint_terms, source_facts
from galpaca.data.spec import DataSpec
from galpaca.errors import GalpacaError
from galpaca.model.checkpoint_tensors import WEIGHT, CheckpointTensors
from galpaca.model.opt import build_model, parameter_shapes
from galpaca.model.tensors import Shapes, check_shapes
from galpaca.release.base import Base, load_base, save_base
from galpaca.release.card import model_card
from galpaca.release.export import SHARD_BYTES, ExportFormat, export
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.host import total_memory_bytes
from galpaca.runs.provenance import processor_name
from galpaca.runs.recipe import TOKENIZER
from galpaca.runs.record import RunRecord
from galpaca.runs.record_fields import Machine, ReleaseFacts
from galpaca.training.specs import TrainerSpec


@dataclass(frozen=True)
class ReleaseSettings:
    """What to release, and where.

    Attributes:
        out: output folder.
        model_path: the folder or Hub id that the card's code snippet uses.
        dtype: dtype of the weights on disk.
        max_new_tokens: default ``max_new_tokens`` of the model.
        shard_bytes: maximum shard size in bytes; None uses the Hub's default.
    """

    out: Path
    model_path: str
    dtype: str
    max_new_tokens: int
    shard_bytes: int | None = None


def keep_for_release(run: RunContext, data: PreparedData, model_config: OPTConfig) -> None:
    """Saves in the run folder, at each start, everything that a release needs besides a checkpoint."""
    if global_rank() != 0:
        return
    config = run.config
    save_base(Base(model_config, data.tokenizer, data.prompts), run.folder.base)
    names = {one.name: _public_names(one.spec) for one in config.data.sources if one.epochs}
    facts = ReleaseFacts(
        dtype=config.release.dtype,
        max_new_tokens=config.release.max_new_tokens,
        base_model=_public_name(config.model.path),
        model_license=config.model.license,
        dataset=", ".join(names.values()),
        data_license=joint_license(config.data),
        terms=joint_terms(config.data),
    )
    run.record.set(sources=source_facts(config.data, data.split, names))
    run.record.set(release=facts)
    run.record.update_start(machine=_machine(config.trainer))


def release(run: RunContext) -> None:
    """Writes the final metrics and the model folder, on rank 0."""
    if global_rank() != 0:
        return
    folder, record, spec = run.folder, run.record, run.config.release
    record.update(final=figures_of(folder))
    settings = ReleaseSettings(folder.model, str(folder.model), spec.dtype, spec.max_new_tokens)
    started = time.perf_counter()
    release_checkpoint(folder, record, folder.checkpoint(folder.last_saved_step()), settings, run.console)
    record.add_seconds(release=time.perf_counter() - started)


def release_checkpoint(
    folder: RunFolder, record: RunRecord, checkpoint: Path, wanted: ReleaseSettings, console: Console
) -> None:
    """Writes the released folder of an intact checkpoint.

    Raises:
        InputError: files of the run are missing or damaged, or as ``release.export.export``.
        GalpacaError: what was written differs from what was trained.
    """
    manifest = read_manifest(checkpoint)
    source = CheckpointTensors(checkpoint, manifest, WEIGHT)
    _check_all_are_trained(checkpoint, manifest, record)
    base = load_base(folder.base, manifest.recipe.settings[TOKENIZER])
    _check_shapes(folder, base, source.shapes)
    facts = card_facts(folder, record, manifest, base, wanted.model_path)
    form = ExportFormat(getattr(torch, wanted.dtype), wanted.max_new_tokens, wanted.shard_bytes or SHARD_BYTES)
    millions = 2 * facts.num_parameters // 10**6
    with counting(console, "million values written and compared", millions) as progress:
        export(source, base, model_card(facts), wanted.out, form, lambda values: progress(values // 10**6))


def _check_all_are_trained(checkpoint: Path, manifest: Manifest, record: RunRecord) -> None:
    """A checkpoint does not hold what was not trained, and a folder without it is no model."""
    total = record.content.parameters or manifest.num_parameters
    if manifest.num_parameters < total:
        raise GalpacaError(
            f"the checkpoint holds {manifest.num_parameters:,} of {total:,} parameters: no others were trained",
            where=checkpoint,
            why="a model is released from a checkpoint that holds all of its weights",
        )


def _check_shapes(folder: RunFolder, base: Base, found: Shapes) -> None:
    wanted = parameter_shapes(build_model(copy.deepcopy(base.config)))
    check_shapes(found, wanted, folder.base, "restore the folder: its config.json belongs to another model")


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
