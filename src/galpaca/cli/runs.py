"""Commands for runs: watch, report, compare, verify, upload, export."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from galpaca.cli.arguments import Run, optional_path


def add_export(command: ArgumentParser) -> Run:
    """Write a checkpoint as a Hugging Face folder with a model card, and verify it."""
    add = command.add_argument
    source = "run folder (the checkpoint that it releases), RUN@STEP, RUN@best, RUN@last, or a checkpoint folder"
    add("source", type=Path, metavar="RUN_OR_CHECKPOINT", help=source)
    add("out", type=Path, metavar="OUT", help="output folder")
    dtype = "dtype of the weights (default: the run's release.dtype)"
    add("--dtype", choices=("float16", "bfloat16", "float32"), help=dtype)
    length = "default length of an answer (default: the run's release.max_new_tokens)"
    add("--max-new-tokens", type=int, metavar="N", help=length)
    shard = "maximum size of a weights file in GB (default: 5)"
    add("--shard-size", dest="shard_gb", type=float, metavar="GB", help=shard)
    add("--adapter", action="store_true", help="of adapters: write them alone, for PEFT")
    merge = "of adapters: merge into the weights as they were in training, or as in their files (default: the run's)"
    add("--merge-into", choices=("trained", "original"), help=merge)
    base = "of adapters: folder of the model that the run started from, if it has moved"
    add("--base", type=optional_path, metavar="FOLDER", help=base)
    add("--overwrite", action="store_true", help="replace an existing model")
    add("--push", metavar="OWNER/NAME", help="upload to a private Hub repository")
    add("--public", action="store_true", help="with --push: make the repository public")

    def run(**options: Any) -> None:
        from galpaca.app.export import ExportOptions, export_run

        export_run(ExportOptions(**options))

    return run


def add_checkpoints(command: ArgumentParser) -> Run:
    """List a run's checkpoints with step, size and loss, and verify their checksums; exit with 1 if one is damaged."""
    add = command.add_argument
    add("run", type=Path, metavar="RUN", help="run folder, e.g. runs/galpaca67b")
    add("--quick", action="store_true", help="check file sizes only, not checksums")
    add("--json", dest="as_json", action="store_true", help="print one line of JSON per checkpoint")

    def run(**options: Any) -> None:
        from galpaca.app.checkpoints import list_checkpoints

        list_checkpoints(**options)

    return run


def add_runs(command: ArgumentParser) -> Run:
    """Show runs in a table, lowest loss first, with the configuration keys that differ."""
    add = command.add_argument
    folders = "run folder, or a folder with runs below it"
    add("paths", type=Path, nargs="+", metavar="RUN_OR_FOLDER", help=folders)
    add("--json", dest="as_json", action="store_true", help="print one line of JSON per run")
    add("--out", type=Path, metavar="FILE", help="also write the table to a Markdown file")

    def run(**options: Any) -> None:
        from galpaca.app.runs import show_runs

        show_runs(**options)

    return run


def add_watch(command: ArgumentParser) -> Run:
    """Follow a run through its files until it ends; exit with 0 if it is complete, otherwise with 1. Keeps waiting for
    a SLURM job that was stopped, since it is restarted.
    """
    add = command.add_argument
    add("run", type=Path, metavar="RUN", help="run folder, e.g. runs/galpaca67b")
    add("--once", action="store_true", help="show the current state and exit")
    add("--wait", action="store_true", help="wait for a run that has not started or will be restarted")
    every = "polling interval (default: 1)"
    add("--every", dest="every_seconds", type=float, default=1.0, metavar="SECONDS", help=every)

    def run(every_seconds: float, **options: Any) -> None:
        from galpaca.app.watch import watch

        if not 0.1 <= every_seconds <= 3600:
            command.error(f"--every must be in [0.1, 3600], got {every_seconds}")
        watch(**options, every_seconds=every_seconds)

    return run


def add_report(command: ArgumentParser) -> Run:
    """Write one self-contained HTML file with plots, answers, data, checkpoints, provenance and configuration of a run,
    finished or not; several runs are overlaid.
    """
    add = command.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders with runs below them")
    out = "output file (default: RUN/report.html; for several runs report.html)"
    add("--out", type=optional_path, metavar="FILE", help=out)

    def run(**options: Any) -> None:
        from galpaca.app.report import report

        report(**options)

    return run


def add_sync(command: ArgumentParser) -> Run:
    """Send to W&B what it lacks of runs that were logged with logger=wandb, each metric once: once, or with --follow
    until they have ended, from a machine with network access.
    """
    add = command.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders with runs below them")
    add("--dry-run", action="store_true", help="only list what is missing; needs no network and no key")
    add("--follow", action="store_true", help="send new lines until the run has ended, or will not be requeued")
    add("--wait", action="store_true", help="with --follow: also wait for a run that will be restarted")

    def run(**options: Any) -> None:
        from galpaca.app.sync import sync

        sync(**options)

    return run


def add_split(command: ArgumentParser) -> Run:
    """Write a run's records as they were in their files, by what they were for: train.jsonl, validation.jsonl and
    test.jsonl; of several sources, files for each.
    """
    command.add_argument("run", type=Path, metavar="RUN", help="run folder")
    command.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="output folder")

    def run(run: Path, out: Path) -> None:
        from galpaca.app.split import split

        split(run, out)

    return run


def add_bug_report(command: ArgumentParser) -> Run:
    """Write one file with a run's versions, configuration, plan, last figures, errors and stacks, to go with a question
    or an issue. Records, keys, names and paths are left out.
    """
    command.add_argument("run", type=Path, metavar="RUN", help="run folder")
    out = "output file (default: bug-report-NAME.md)"
    command.add_argument("--out", type=optional_path, metavar="FILE", help=out)

    def run(**options: Any) -> None:
        from galpaca.app.bug_report import bug_report

        bug_report(**options)

    return run


def add_cite(command: ArgumentParser) -> Run:
    """Print a paragraph on how a run's model was made (recipe, seed, hardware, hours, energy where it was read), and
    the citations that it owes in BibTeX.
    """
    command.add_argument("run", type=Path, metavar="RUN", help="run folder, or RUN@STEP")

    def run(**options: Any) -> None:
        from galpaca.app.cite import cite

        cite(**options)

    return run
