"""Commands for runs: watch, report, compare, verify, upload, export."""

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
        help="write a checkpoint as a Hugging Face folder, and optionally upload it",
        description="Write a checkpoint as a Hugging Face folder with a model card, and verify it.",
    )
    command.add_argument(
        "source", metavar="RUN_OR_CHECKPOINT", help="run folder (its newest checkpoint), or a checkpoint folder"
    )
    command.add_argument("out", metavar="OUT", help="output folder")
    command.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="dtype of the weights (default: the run's release.dtype)",
    )
    command.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="default length of an answer (default: the run's release.max_new_tokens)",
    )
    command.add_argument(
        "--shard-size", type=float, metavar="GB", help="maximum size of a weights file in GB (default: 5)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing model")
    command.add_argument("--push", metavar="OWNER/NAME", help="upload to a private Hub repository")
    command.add_argument("--public", action="store_true", help="with --push: make the repository public")

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
        description="List a run's checkpoints with step, size and loss, and verify their checksums; exit with 1 if one "
        "is damaged.",
    )
    command.add_argument("folder", metavar="RUN", help="run folder, e.g. runs/galpaca67b")
    command.add_argument("--quick", action="store_true", help="check file sizes only, not checksums")
    command.add_argument("--json", action="store_true", help="print one line of JSON per checkpoint")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.checkpoints import list_checkpoints

        list_checkpoints(options.folder, contents=not options.quick, as_json=options.json)

    command.set_defaults(run=run)


def add_runs(commands: Commands) -> None:
    """``galpaca runs``."""
    command = commands.add_parser(
        "runs",
        help="compare runs: state, losses, speed and configuration differences",
        description="Show runs in a table, lowest loss first, with the configuration keys that differ.",
    )
    command.add_argument(
        "folders", nargs="+", metavar="RUN_OR_FOLDER", help="run folder, or a folder with runs below it"
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON per run")
    command.add_argument("--out", metavar="FILE", help="also write the table to a Markdown file")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.runs import show_runs

        show_runs(options.folders, as_json=options.json, out=options.out)

    command.set_defaults(run=run)


def add_watch(commands: Commands) -> None:
    """``galpaca watch``."""
    command = commands.add_parser(
        "watch",
        help="follow a run from another terminal or a login node",
        description="Follow a run through its files until it ends; exit with 0 if it is complete, otherwise with 1. "
        "Keeps waiting for a SLURM job that was stopped, since it is restarted.",
    )
    command.add_argument("folder", metavar="RUN", help="run folder, e.g. runs/galpaca67b")
    command.add_argument("--once", action="store_true", help="show the current state and exit")
    command.add_argument("--wait", action="store_true", help="wait for a run that has not started or will be restarted")
    command.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="polling interval (default: 1)")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.watch import watch

        if not 0.1 <= options.every <= 3600:
            command.error(f"--every must be in [0.1, 3600], got {options.every}")
        watch(Path(options.folder), once=options.once, wait=options.wait, every_seconds=options.every)

    command.set_defaults(run=run)


def add_report(commands: Commands) -> None:
    """``galpaca report``."""
    command = commands.add_parser(
        "report",
        help="write one or several runs as one page with plots",
        description="Write one self-contained HTML file with plots, answers, data, checkpoints, provenance and "
        "configuration of a run, finished or not; several runs are overlaid.",
    )
    command.add_argument("folders", nargs="+", metavar="RUN", help="run folders, e.g. runs/galpaca67b")
    command.add_argument(
        "--out", metavar="FILE", help="output file (default: RUN/report.html; for several runs report.html)"
    )

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.report import report

        report([Path(folder) for folder in options.folders], Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def add_sync(commands: Commands) -> None:
    """``galpaca sync``."""
    command = commands.add_parser(
        "sync",
        help="send to W&B what it lacks of runs, also while they train",
        description="Send to W&B what it lacks of runs that were logged with logger=wandb, each metric once: once, or "
        "with --follow until they have ended, from a machine with network access.",
    )
    command.add_argument("runs", nargs="+", metavar="RUN", help="run folder, e.g. runs/galpaca67b")
    command.add_argument(
        "--dry-run", action="store_true", help="only list what is missing; needs no network and no key"
    )
    command.add_argument(
        "--follow", action="store_true", help="send new lines until the run has ended, or will not be requeued"
    )
    command.add_argument(
        "--wait", action="store_true", help="with --follow: also wait for a run that will be restarted"
    )

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.sync import sync

        sync(options.runs, dry_run=options.dry_run, follow=options.follow, wait=options.wait)

    command.set_defaults(run=run)
