"""What a person does with a run: see it, compare it, release it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_export(commands: Commands) -> None:
    """``galpaca export``."""
    command = commands.add_parser(
        "export",
        help="write a checkpoint as a Hugging Face folder, and upload it if asked",
        description="Writes a checkpoint as a Hugging Face folder with its card, and compares it with the checkpoint.",
    )
    command.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a run's newest checkpoint, or the one named")
    command.add_argument("out", metavar="OUT", help="the folder to be")
    command.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: the run's release.dtype")
    command.add_argument("--max-new-tokens", type=int, metavar="N", help="length of an answer, unless asked otherwise")
    command.add_argument("--shard-size", type=float, metavar="GB", help="of a file of weights at most (default: 5)")
    command.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    command.add_argument("--push", metavar="OWNER/NAME", help="upload it to the Hub, where nobody else sees it")
    command.add_argument("--public", action="store_true", help="with --push: everyone sees it")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.export import ExportOptions, export_run

        export_run(
            ExportOptions(
                source=Path(options.source),
                out=Path(options.out),
                dtype=options.dtype,
                max_new_tokens=options.max_new_tokens,
                shard_gb=options.shard_size,
                overwrite=options.overwrite,
                push=options.push,
                public=options.public,
            )
        )

    command.set_defaults(run=run)


def add_checkpoints(commands: Commands) -> None:
    """``galpaca checkpoints``."""
    command = commands.add_parser(
        "checkpoints",
        help="list a run's checkpoints and verify them",
        description="Lists a run's checkpoints with step, size, loss, and whether they are whole; exits with 1 if one "
        "is not.",
    )
    command.add_argument("folder", metavar="RUN", help="run folder, for instance runs/galpaca67b")
    command.add_argument("--quick", action="store_true", help="look at sizes only, read no file")
    command.add_argument("--json", action="store_true", help="one line of JSON for every checkpoint")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.checkpoints import list_checkpoints

        list_checkpoints(options.folder, contents=not options.quick, as_json=options.json)

    command.set_defaults(run=run)


def add_runs(commands: Commands) -> None:
    """``galpaca runs``."""
    command = commands.add_parser(
        "runs",
        help="compare runs: state, losses, speed, and the configuration that differs",
        description="Shows runs in a table, the lowest loss first, with the keys of their configuration that differ.",
    )
    command.add_argument("folders", nargs="+", metavar="RUN_OR_FOLDER", help="a run, or a folder with runs below it")
    command.add_argument("--json", action="store_true", help="one line of JSON for every run")
    command.add_argument("--out", metavar="FILE", help="write the table there too, in Markdown")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.runs import show_runs

        show_runs(options.folders, as_json=options.json, out=options.out)

    command.set_defaults(run=run)


def add_watch(commands: Commands) -> None:
    """``galpaca watch``."""
    command = commands.add_parser(
        "watch",
        help="follow a run from another terminal or a login node",
        description="Follows a run from its files alone until it ends; exits with 0 if it is complete then, else with "
        "1. A job of SLURM that was stopped is waited for.",
    )
    command.add_argument("folder", metavar="RUN", help="run folder, for instance runs/galpaca67b")
    command.add_argument("--once", action="store_true", help="show it as it is now, and end")
    command.add_argument("--wait", action="store_true", help="wait for a run that has not begun, or is to go on")
    command.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: 1)")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.watch import watch

        if not 0.1 <= options.every <= 3600:
            command.error("--every SECONDS is 0.1 to 3600")
        watch(Path(options.folder), once=options.once, wait=options.wait, every_seconds=options.every)

    command.set_defaults(run=run)


def add_report(commands: Commands) -> None:
    """``galpaca report``."""
    command = commands.add_parser(
        "report",
        help="write a run, or several, as one page with plots",
        description="Writes one HTML file with the plots, answers, data, checkpoints, provenance and configuration of "
        "a run, finished or not; several runs are drawn over each other. It needs no network and no account.",
    )
    command.add_argument("folders", nargs="+", metavar="RUN", help="run folders, for instance runs/galpaca67b")
    command.add_argument("--out", metavar="FILE", help="default: RUN/report.html; of several runs report.html")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.report import report

        report([Path(folder) for folder in options.folders], Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def add_sync(commands: Commands) -> None:
    """``galpaca sync``."""
    command = commands.add_parser(
        "sync",
        help="upload what runs have logged to W&B without a network",
        description="Uploads to W&B what runs have logged without a network, each figure once. A run that is running "
        "is left out.",
    )
    command.add_argument("runs", nargs="+", metavar="RUN", help="run folder, for instance runs/galpaca67b")
    command.add_argument("--dry-run", action="store_true", help="list it and do no more; takes no network and no key")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.sync import sync

        sync(options.runs, dry_run=options.dry_run)

    command.set_defaults(run=run)
