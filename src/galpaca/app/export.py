"""``galpaca export``: writes any checkpoint of a run as a Hugging Face folder, and optionally uploads it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from galpaca.app.console import make_console, show_rows
from galpaca.errors import InputError, Problems
from galpaca.formatting import format_bytes
from galpaca.inference.places import checkpoint_of_name
from galpaca.runs.checkpoints import best_saved_step, damage, newest_whole
from galpaca.runs.folder import RunFolder, find_run, step_of
from galpaca.runs.record import RunRecord
from galpaca.runs.record_fields import ReleaseFacts
from galpaca.training.optimizers.factory import dtype_bytes

if TYPE_CHECKING:
    from galpaca.app.train.trained_model import TrainedModel


@dataclass(frozen=True)
class ExportOptions:
    """Options of ``galpaca export``.

    Attributes:
        source: a run folder, or one of its checkpoints, also as ``RUN@STEP``.
        out: output folder.
        dtype: dtype of the weights on disk; None takes the run's ``release.dtype``.
        max_new_tokens: default length of an answer; None takes the run's ``release.max_new_tokens``.
        shard_gb: maximum shard size in gigabytes (10^9 bytes); None uses the Hub's default.
        overwrite: replace an existing model.
        push: Hub repository to upload to, ``OWNER/NAME``.
        public: make that repository public.
        adapter: write the adapter alone, for PEFT, instead of the whole model.
        merge_into: which weights adapters are merged into; None takes the run's ``release.merge_into``.
        base: folder of the model that the run started from, where it is not where it was.
    """

    source: Path
    out: Path
    dtype: str | None = None
    max_new_tokens: int | None = None
    shard_gb: float | None = None
    overwrite: bool = False
    push: str | None = None
    public: bool = False
    adapter: bool = False
    merge_into: str | None = None
    base: Path | None = None


def export_run(options: ExportOptions) -> None:
    """Writes and verifies the folder, and uploads it if requested.

    Raises:
        InputError: a user error; nothing is written.
        GalpacaError: what was written differs from what was trained, or the upload failed.
    """
    console = make_console()
    source = checkpoint_of_name(str(options.source))
    folder = find_run(source, recorded=True)
    _check(options, folder)
    record = RunRecord(folder.record)
    facts = _facts(folder, record)
    _check_public_base(options, record)
    checkpoint = choose_checkpoint(folder, source.resolve(), console, facts.checkpoint)
    out = Path(options.out).absolute()
    from galpaca.app.train.trained_model import open_model

    model = open_model(folder, record, checkpoint, options.base)
    rows = _write(options, model, facts, out, console)
    show_rows(console, "exported; it is what the checkpoint holds", [("checkpoint", str(checkpoint)), *rows])
    if options.push:
        from galpaca.release.push import push

        console.print(f"uploading to {options.push}")
        console.print(f"uploaded to {push(out, options.push, public=options.public)}")


def _write(
    options: ExportOptions, model: TrainedModel, facts: ReleaseFacts, out: Path, console: Console
) -> list[tuple[str, str]]:
    """Writes what was requested; returns what it is, for the terminal."""
    from galpaca.app.train.release import ReleaseSettings, release_adapter, release_model

    model_path = options.push or str(options.out)
    if options.adapter:
        release_adapter(model, out, model_path)
        return [("adapter", str(options.out))]
    dtype = options.dtype or facts.dtype
    _check_disk_space(model.record.content.parameters or model.weights.manifest.num_parameters, out, dtype)
    wanted = ReleaseSettings(
        out=out,
        model_path=model_path,
        dtype=dtype,
        max_new_tokens=options.max_new_tokens or facts.max_new_tokens,
        shard_bytes=None if options.shard_gb is None else max(1, int(options.shard_gb * 10**9)),
        merge_into=options.merge_into or facts.merge_into or "trained",
    )
    release_model(model, wanted, console)
    return [("weights", dtype), ("model", str(options.out))]


def choose_checkpoint(folder: RunFolder, source: Path, console: Console, which: str | None = None) -> Path:
    """The requested checkpoint; of a run, the newest intact one, or the ``best`` where it releases that.

    Raises:
        InputError: it is damaged, all checkpoints are damaged, or there is none.
    """
    if source != folder.path:
        if found := _damage(console, source):
            step, _ = newest_whole(folder, before=step_of(source.name) or 0)
            use = f"use the previous checkpoint, which is intact: {folder.checkpoint(step)}"
            fix = use if step else "restore its files from a backup; no earlier checkpoint is intact"
            raise InputError(f"the checkpoint is damaged: {'; '.join(found)}", where=source, fix=fix)
        return source
    if which == "best" and (best := best_saved_step(folder)) is not None:
        return choose_checkpoint(folder, folder.checkpoint(best), console)
    step, damaged = newest_whole(folder, look=partial(_damage, console))
    with Problems() as problems:
        for checkpoint, found in damaged.items():
            console.print(f"[yellow]warning:[/yellow] skipping damaged checkpoint {checkpoint}: {'; '.join(found)}")
            if not step:
                problems.add("; ".join(found), where=checkpoint, fix="restore its files from a backup")
    if not step:
        raise InputError("the run has no checkpoint", where=folder.path, fix="rerun the training command to get one")
    return folder.checkpoint(step)


def _damage(console: Console, checkpoint: Path) -> list[str]:
    console.print(f"verifying {checkpoint.name}")
    return damage(checkpoint)


def _facts(folder: RunFolder, record: RunRecord) -> ReleaseFacts:
    if record.content.release is None:
        raise InputError(
            "the run was started by a version of galpaca that did not save what a release needs",
            where=folder.record,
            fix="rerun the training command to add it, unless the run is complete",
        )
    return record.content.release


def _check(options: ExportOptions, folder: RunFolder) -> None:
    with Problems() as problems:
        problems.check_number("--max-new-tokens", options.max_new_tokens, "at least 1", "--max-new-tokens 512")
        problems.check_number("--shard-size", options.shard_gb, "> 0", "--shard-size 5, in 10^9 bytes")
        if options.public and not options.push:
            problems.add("--public requires --push", where="--public", fix="--push OWNER/NAME --public")
        _check_adapter(problems, options)
        if options.push:
            from galpaca.release.push import check_push

            check_push(problems, options.push)
        _check_out(problems, options, folder)


def _check_adapter(problems: Problems, options: ExportOptions) -> None:
    """An adapter's weights stay in float32 in one file, and it brings no settings of generation."""
    of_models = {"--dtype": options.dtype, "--max-new-tokens": options.max_new_tokens, "--shard-size": options.shard_gb}
    for name, value in {**of_models, "--merge-into": options.merge_into}.items():
        if options.adapter and value is not None:
            problems.add(f"{name} is for whole models", where="--adapter", fix=f"leave out {name}, or --adapter")
    if options.base is not None and not options.base.is_dir():
        problems.add(
            "no such folder", where=options.base, fix="--base FOLDER, with the weights that the run began with"
        )


def _check_public_base(options: ExportOptions, record: RunRecord) -> None:
    """An adapter on the Hub names the model that it belongs to, which others must find there."""
    base = record.content.weights
    if options.adapter and options.push and not base.get("commit"):
        raise InputError(
            "the adapter would name a folder of this machine as the model that it belongs to",
            where=str(base.get("folder")),
            why="nobody else could load it, and the path would be public",
            fix="leave out --adapter to upload the whole model, or train from the Hub id (model.path=OWNER/NAME)",
        )


def _check_out(problems: Problems, options: ExportOptions, folder: RunFolder) -> None:
    out = options.out.resolve()
    if out == folder.base.resolve() or folder.checkpoints.resolve() in (out, *out.parents):
        problems.add("the run itself needs this folder", where=options.out, fix="choose another folder")
    elif not out.exists():
        return
    elif not options.overwrite:
        problems.add("already exists", where=options.out, fix="choose another folder, or use --overwrite")
    elif not any((out / name).is_file() for name in ("config.json", "adapter_config.json")):
        problems.add(
            "exists but is not a model, so it is not overwritten",
            where=options.out,
            why="it has no config.json or adapter_config.json",
            fix="choose another folder, or delete it yourself",
        )


def _check_disk_space(num_parameters: int, out: Path, dtype: str) -> None:
    wanted = num_parameters * dtype_bytes(dtype)
    disk = next(parent for parent in out.parents if parent.exists())
    free = shutil.disk_usage(disk).free
    if wanted > free:
        raise InputError(
            f"{format_bytes(free)} of disk space free, but the weights take {format_bytes(wanted)} in {dtype}",
            where=out,
            fix="free disk space, or export to another disk" + ("; or --dtype float16" if dtype == "float32" else ""),
        )
