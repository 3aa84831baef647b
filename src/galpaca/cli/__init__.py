"""The ``galpaca`` command: one file per group of commands; each command's imports are loaded when it runs."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from galpaca.app.entrypoint import run_command
from galpaca.cli import models, runs, setup
from galpaca.cli.arguments import Run

# Each function adds a command's arguments to its parser, and is described by its docstring.
_COMMANDS: Sequence[tuple[str, Callable[[argparse.ArgumentParser], Run], str]] = (
    ("prepare", setup.add_prepare, "download, convert and encode everything a run needs"),
    ("estimate", setup.add_estimate, "say what a run will take before it is queued: memory, hours, the job's lines"),
    ("rehearse", setup.add_rehearse, "test a run on its own machine: memory, speed, run time, and whether it fits"),
    ("inspect", setup.add_inspect, "show records as the model will see them"),
    ("split", runs.add_split, "write a run's records for training, validation and a test"),
    ("watch", runs.add_watch, "follow a run from another terminal or a login node"),
    ("report", runs.add_report, "write one or several runs as one page with plots"),
    ("runs", runs.add_runs, "compare runs: state, losses, speed and configuration differences"),
    ("checkpoints", runs.add_checkpoints, "list a run's checkpoints and verify them"),
    ("cite", runs.add_cite, "say how a run's model was made, with the citations that it owes"),
    ("bug-report", runs.add_bug_report, "write what others need to know of a run that went wrong"),
    ("sync", runs.add_sync, "send to W&B what it lacks of runs, also while they train"),
    ("export", runs.add_export, "write a checkpoint as a Hugging Face folder, and optionally upload it"),
    ("generate", models.add_generate, "answer one instruction, or a file of them"),
    ("chat", models.add_chat, "chat with a model in the terminal or in the browser"),
    ("compare", models.add_compare, "compare answers and losses of several models on one page"),
    ("evaluate", models.add_evaluate, "evaluate a model: loss on records, or lm-eval tasks"),
    ("demo", setup.add_demo, "train a small model on science facts and quiz it (two minutes on two cores)"),
)

# They end when nobody reads any more; the others have work to do.
_ONLY_PRINT = ("cite", "estimate", "inspect", "watch", "runs", "checkpoints", "chat")


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
    options = vars(parser.parse_args(given))
    act = options.pop("act")
    return run_command(lambda: act(**options), only_prints=given[0] in _ONLY_PRINT)


def _parser() -> argparse.ArgumentParser:
    about = "Instruction-tune GALACTICA: from Alpaca-format records to a released model."
    parser = argparse.ArgumentParser(prog="galpaca", description=about)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("train", help="train and release a model (same as python train.py)", add_help=False)
    for name, add_arguments, summary in _COMMANDS:
        command = commands.add_parser(name, help=summary, description=add_arguments.__doc__)
        command.set_defaults(act=add_arguments(command))
    return parser
