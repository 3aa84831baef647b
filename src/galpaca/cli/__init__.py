"""The ``galpaca`` command: one file per group of commands; each command's imports are loaded when it runs."""

import argparse
import os
import sys
from collections.abc import Sequence

from galpaca.app.entrypoint import run_command
from galpaca.cli import models, runs, setup


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; see ``galpaca --help``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["train"]:
        # A process of its own, by a name under which Lightning can start it again for the other ranks.
        os.execv(sys.executable, [sys.executable, "-m", "galpaca.train", *given[1:]])
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(given)
    return run_command(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="galpaca",
        description="Instruction-tune GALACTICA: from Alpaca-format records to a released model.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("train", help="train and release a model (same as python train.py)", add_help=False)
    for add in (
        *(setup.add_prepare, setup.add_rehearse, setup.add_inspect),
        *(runs.add_watch, runs.add_report, runs.add_runs, runs.add_checkpoints, runs.add_sync, runs.add_export),
        *(models.add_generate, models.add_chat, models.add_compare, models.add_evaluate, setup.add_demo),
    ):
        add(commands)
    return parser
