"""``galpaca checkpoints``: lists and verifies a run's checkpoints."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, Problems
from galpaca.formatting import format_bytes, format_or
from galpaca.runs.checkpoints import damage, read_manifest
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.history import History, read_history


@dataclass(frozen=True)
class Row:
    """One checkpoint.

    Attributes:
        step: optimizer step after which it was saved.
        time: when it was saved, UTC; None if its manifest cannot be read.
        bytes: size on disk.
        loss, val_loss: losses of that step, if ``metrics.jsonl`` has them.
        num_ranks: number of ranks that wrote it.
        stall_seconds, write_seconds: how long training waited for it, and how long writing took.
        damage: what is wrong with it; empty if it is intact.
    """

    step: int
    time: str | None
    bytes: int
    loss: float | None
    val_loss: float | None
    num_ranks: int | None
    stall_seconds: float | None
    write_seconds: float | None
    damage: list[str]


def list_checkpoints(run: Path, *, quick: bool, as_json: bool) -> None:
    """Prints the checkpoints of a run, oldest first.

    Args:
        run: run folder.
        quick: compare sizes only; otherwise read all files and compare checksums.
        as_json: print one line of JSON per checkpoint instead of a table.

    Raises:
        InputError: not a run folder.
        GalpacaError: at the end, if a checkpoint is damaged.
    """
    folder = find_run(run)
    history = read_history(folder.metrics)
    found = [_row(folder, step, history, not quick) for step in folder.saved_steps()]
    rows = [row for row in found if row is not None]
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
    else:
        _show(make_console(), folder, rows, not quick)
    if damaged := [row for row in rows if row.damage]:
        whole = [row.step for row in rows if not row.damage]
        raise GalpacaError(
            f"{len(damaged)} of {len(rows)} checkpoints are damaged: " + ", ".join(f"step {r.step}" for r in damaged),
            where=folder.checkpoints,
            why="; ".join(reason for row in damaged for reason in row.damage),
            fix=f"rerun the training command to resume from step {whole[-1]}"
            if whole
            else "restore them from a backup",
        )


def _row(folder: RunFolder, step: int, history: History, contents: bool) -> Row | None:
    """None if it was removed meanwhile: a live run removes old checkpoints."""
    checkpoint = folder.checkpoint(step)
    found = damage(checkpoint, contents=contents)
    manifest = Problems().collect(lambda: read_manifest(checkpoint))
    try:
        num_bytes = sum(file.stat().st_size for file in checkpoint.iterdir())
    except FileNotFoundError:
        return None
    return Row(
        step=step,
        time=manifest.time if manifest else None,
        bytes=num_bytes,
        loss=history.loss_of(step),
        val_loss=history.val_loss_of(step),
        num_ranks=manifest.num_ranks if manifest else None,
        stall_seconds=manifest.seconds.stall if manifest else None,
        write_seconds=manifest.seconds.write if manifest else None,
        damage=found,
    )


def _show(console: Console, folder: RunFolder, rows: list[Row], contents: bool) -> None:
    if not rows:
        console.print(f"{folder.path} has no checkpoint yet")
        return
    table = Table(box=None, header_style="cyan", pad_edge=False)
    for header in ("step", "taken (UTC)", "size", "loss", "val loss", "stall, write", "state"):
        table.add_column(header, justify="left" if header in ("taken (UTC)", "state") else "right", no_wrap=True)
    whole = "[green]verified[/green]" if contents else "complete"
    for row in rows:
        table.add_row(
            f"{row.step:,}",
            (row.time or "-")[:16].replace("T", " "),
            format_bytes(row.bytes),
            format_or(row.loss, ".4f"),
            format_or(row.val_loss, ".4f"),
            f"{format_or(row.stall_seconds, '.2f')}, {format_or(row.write_seconds, '.2f')} s",
            "[red]damaged[/red]" if row.damage else whole,
        )
    console.print(table)
