"""The summary of a complete run: its metrics, where everything is, and what to run next."""

import shlex
from collections.abc import Sequence

from rich.console import Console

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.schema import Config
from galpaca.app.console import show_rows
from galpaca.app.report import write_report
from galpaca.app.train.card import early_stop_rows, result_rows
from galpaca.app.train.context import RunContext
from galpaca.runs.folder import RunFolder
from galpaca.runs.record_fields import FinalFigures, ReleaseFacts


def finish(run: RunContext) -> None:
    """Writes the report and prints the summary, on rank 0."""
    if global_rank() != 0:
        return
    folder, console, content = run.folder, run.console, run.record.content
    released = run.config.released_folders
    paths = [*((name, str(folder.path / name)) for name in released), *_report_row(folder, console)]
    show_rows(console, "done", [*early_stop_rows(content), *result_rows(content.final or FinalFigures()), *paths])
    show_rows(console, "next", next_commands(folder, released))


def next_commands(folder: RunFolder, released: Sequence[str] = ("model",)) -> list[tuple[str, str]]:
    """Commands to use the released model, ready to paste.

    Args:
        released: names of the released folders.
    """
    run = shlex.quote(str(folder.path))
    model = shlex.quote(str(folder.model)) if "model" in released else run
    whole = "" if "model" in released else " --adapter"
    return [
        ("chat", f"galpaca chat {model}"),
        ("generate", f'galpaca generate {model} --instruction "..."'),
        ("report", f"galpaca report {run}"),
        ("publish", f"galpaca export {run} {shlex.quote(folder.path.name + '-hub')}{whole} --push OWNER/NAME"),
    ]


def release_advice(folder: RunFolder, config: Config, released: ReleaseFacts | None) -> list[str]:
    """What a complete run was asked for and does not have, as the commands that make it: a finished run stays as it is.

    Args:
        released: what was released.
    """
    if released is None:
        return []
    options = {"dtype": "--dtype", "max_new_tokens": "--max-new-tokens", "merge_into": "--merge-into"}
    wanted = {
        name: value
        for name, value in ((name, getattr(config.release, name)) for name in options)
        if getattr(released, name) not in (None, value)
    }
    was = released.checkpoint or "last"
    if not wanted and was == config.release.checkpoint:
        return []
    given = " ".join(f"{options[name]} {value}" for name, value in wanted.items())
    source = str(folder.path)
    keys = [f"release.{name}={value}, not {getattr(released, name)}" for name, value in wanted.items()]
    if was != config.release.checkpoint:
        wanted["checkpoint"] = config.release.checkpoint
        keys.append(f"release.checkpoint={config.release.checkpoint}, not {was}")
        source += f"@{config.release.checkpoint}"
    out = f"{folder.path}-{'-'.join(str(value) for value in wanted.values())}"
    return [f"asked for {', '.join(keys)}: galpaca export {shlex.quote(source)} {shlex.quote(out)} {given}".rstrip()]


def _report_row(folder: RunFolder, console: Console) -> list[tuple[str, str]]:
    """A report that cannot be written is a warning: the run itself succeeded."""
    try:
        return [("report", str(write_report([folder.path])))]
    except Exception as error:
        console.print(f"[yellow]warning:[/yellow] cannot write the report: {error}", markup=True)
        return []
