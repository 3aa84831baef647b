"""``galpaca export``: any checkpoint of a run as a Hugging Face folder, and on the Hub if that is asked for."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.app.console import make_console, show_rows
from galpaca.errors import InputError, Problems
from galpaca.formatting import format_bytes
from galpaca.runs.checkpoints import damage, read_manifest
from galpaca.runs.folder import RunFolder, find_run, step_of
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ExportOptions:
    """What the command line says.

    Attributes:
        source: a run's folder, or one of its checkpoints.
        out: the folder to be.
        dtype: of the weights on disk; None takes the run's ``release.dtype``.
        max_new_tokens: default length of an answer; None takes the run's ``release.max_new_tokens``.
        shard_gb: most gigabytes (10^9 bytes) of weights in a file; None is what the Hub's tools take.
        overwrite: replace a model that is there.
        push: repository on the Hub that the folder goes to, ``OWNER/NAME``.
        public: let everyone see that repository.
    """

    source: Path
    out: Path
    dtype: str | None = None
    max_new_tokens: int | None = None
    shard_gb: float | None = None
    overwrite: bool = False
    push: str | None = None
    public: bool = False


def export_run(options: ExportOptions) -> None:
    """Writes, verifies, and uploads if asked.

    Raises:
        InputError: the user's mistake; nothing is written.
        GalpacaError: what was written is not what was trained; the Hub refuses it.
    """
    console = make_console()
    folder = find_run(options.source, recorded=True)
    _check(options, folder)
    record = RunRecord(folder.record)
    asked = _asked(folder, record)
    checkpoint = choose_checkpoint(folder, options.source.resolve(), console)
    dtype = options.dtype or asked["dtype"]
    out = Path(options.out).absolute()
    _check_room(checkpoint, out, dtype)

    from galpaca.app.release import Wanted, release_checkpoint

    wanted = Wanted(
        out=out,
        model_path=options.push or str(options.out),
        dtype=dtype,
        max_new_tokens=options.max_new_tokens or asked["max_new_tokens"],
        shard_bytes=None if options.shard_gb is None else max(1, int(options.shard_gb * 10**9)),
    )
    release_checkpoint(folder, record, checkpoint, wanted, console)
    rows = [("checkpoint", str(checkpoint)), ("weights", dtype), ("model", str(options.out))]
    show_rows(console, "exported; weights and logits are the checkpoint's", rows)
    if options.push:
        from galpaca.release.push import push

        console.print(f"uploading to {options.push}")
        console.print(f"it is {push(out, options.push, public=options.public)}")


def choose_checkpoint(folder: RunFolder, source: Path, console: Console) -> Path:
    """The checkpoint that is asked for, or a run's newest one that is whole.

    Raises:
        InputError: it is damaged, or all of a run's are, or there is none.
    """
    steps = folder.saved_steps()
    if source != folder.path:
        found = _damage(source, console)
        if found:
            raise InputError(
                f"the checkpoint is damaged: {'; '.join(found)}",
                where=source,
                fix=_instead(folder, [step for step in steps if step < (step_of(source.name) or 0)]),
            )
        return source
    problems = Problems()
    for step in reversed(steps):
        checkpoint = folder.checkpoint(step)
        found = _damage(checkpoint, console)
        if not found:
            return checkpoint
        problems.add("; ".join(found), where=checkpoint, fix="restore its files from a copy")
        console.print(f"[yellow]warning:[/yellow] {checkpoint} is left out: {'; '.join(found)}")
    problems.raise_any()
    raise InputError(
        "the run has no checkpoint", where=folder.path, fix="the command that trains, given again, goes on to one"
    )


def _damage(checkpoint: Path, console: Console) -> list[str]:
    console.print(f"comparing {checkpoint.name} with its checksums")
    return damage(checkpoint)


def _instead(folder: RunFolder, earlier: list[int]) -> str:
    """Names the newest earlier checkpoint that is whole."""
    for step in reversed(earlier):
        if not damage(folder.checkpoint(step)):
            return f"the one before it is whole: {folder.checkpoint(step)}"
    return "restore its files from a copy; no earlier checkpoint is whole"


def _asked(folder: RunFolder, record: RunRecord) -> dict[str, Any]:
    if "release" not in record.content:
        raise InputError(
            "the run was begun by a galpaca that kept nothing for a release",
            where=folder.record,
            fix="the command that trains, given again, writes it unless the run is complete",
        )
    asked: dict[str, Any] = record.content["release"]
    return asked


def _check(options: ExportOptions, folder: RunFolder) -> None:
    problems = Problems()
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        problems.add(f"{options.max_new_tokens} is too few", where="--max-new-tokens", fix="--max-new-tokens 512")
    if options.shard_gb is not None and not 0 < options.shard_gb < float("inf"):
        problems.add(f"{options.shard_gb} is no size", where="--shard-size", fix="--shard-size 5, in 10^9 bytes")
    if options.public and not options.push:
        problems.add("nothing is to be uploaded", where="--public", fix="--push OWNER/NAME --public")
    if options.push:
        from galpaca.release.push import check_push

        check_push(problems, options.push)
    _check_out(problems, options, folder)
    problems.raise_any()


def _check_out(problems: Problems, options: ExportOptions, folder: RunFolder) -> None:
    out = options.out.resolve()
    if out == folder.base.resolve() or folder.checkpoints.resolve() in (out, *out.parents):
        problems.add("the run needs what is there", where=options.out, fix="another folder")
    elif not out.exists():
        return
    elif not options.overwrite:
        problems.add("there is something already", where=options.out, fix="another folder, or --overwrite")
    elif not (out / "config.json").is_file():
        problems.add(
            "what is there is no model, and is not overwritten",
            where=options.out,
            why="it has no config.json",
            fix="another folder, or remove it yourself",
        )


def _check_room(checkpoint: Path, out: Path, dtype: str) -> None:
    parameters = read_manifest(checkpoint).parameters
    wanted = sum(math.prod(shape) for shape in parameters.values()) * _ITEM_BYTES[dtype]
    disk = next(parent for parent in out.parents if parent.exists())
    free = shutil.disk_usage(disk).free
    if wanted > free:
        raise InputError(
            f"the disk has {format_bytes(free)} free and the weights take {format_bytes(wanted)} in {dtype}",
            where=out,
            fix="make room, or a folder on another disk" + ("; or --dtype float16" if dtype == "float32" else ""),
        )
