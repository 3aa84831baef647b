"""Commands to run before training, and the demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_prepare(commands: Commands) -> None:
    """``galpaca prepare``."""
    command = commands.add_parser(
        "prepare",
        help="download, convert and encode everything a run needs",
        description="Download the model and the records, convert the weights to safetensors, encode the records and "
        "verify everything, so that the run needs no network. Prints the command that starts or submits the run.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides as for train, e.g. +experiment=NAME"
    )
    command.add_argument("--weights", metavar="FOLDER", help="only convert the pytorch_model*.bin files in FOLDER")
    command.add_argument(
        "--out", metavar="FOLDER", help="with --weights: output folder (default: next to the .bin files)"
    )

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.prepare import prepare
        from galpaca.app.prepared.convert import convert_folder

        if options.weights is None and options.out is None:
            prepare(options.overrides)
        elif options.weights is None or options.overrides:
            command.error("give either --weights FOLDER [--out FOLDER], or KEY=VALUE overrides as for train")
        else:
            convert_folder(Path(options.weights), Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def add_rehearse(commands: Commands) -> None:
    """``galpaca rehearse``."""
    command = commands.add_parser(
        "rehearse",
        help="test a run on its own machine: memory, speed, run time, and whether it fits",
        description="Train on the longest steps of the run's plan, kill the run, resume, export and reload it, and "
        "estimate what the whole run will take. The real run folder is not touched. Start it under srun or torchrun "
        "with one process per GPU, or directly in a terminal.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides as for train, e.g. +experiment=NAME"
    )
    command.add_argument("--steps", type=int, default=20, metavar="N", help="number of steps to train (default: 20)")
    command.add_argument("--minutes", type=float, default=30, metavar="MINUTES", help="time limit (default: 30)")
    command.add_argument("--keep", action="store_true", help="keep the rehearsal's folder")
    command.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.rehearsal.rehearse import RehearseOptions, rehearse

        rehearse(
            RehearseOptions(
                overrides=tuple(options.overrides),
                num_steps=options.steps,
                keep=options.keep,
                limit_minutes=options.minutes,
                as_json=options.json,
            )
        )

    command.set_defaults(run=run)


def add_inspect(commands: Commands) -> None:
    """``galpaca inspect``."""
    command = commands.add_parser(
        "inspect",
        help="show records as the model will see them",
        description="Show records as the model will see them, tokens with loss in colour, and the receipt.",
    )
    command.add_argument("file", metavar="FILE", help="records: .json, .jsonl, .csv, .tsv or .parquet")
    command.add_argument("--tokenizer", required=True, metavar="FOLDER_OR_ID", help="tokenizer folder or Hub id")
    command.add_argument(
        "--template", default="alpaca", help="prompt template: alpaca, science, or a .yaml file (default: alpaca)"
    )
    command.add_argument(
        "--max-length", type=int, default=512, metavar="TOKENS", help="truncate examples to TOKENS (default: 512)"
    )
    command.add_argument("--records", type=int, default=3, metavar="N", help="number of records to show (default: 3)")
    command.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="column for instruction, input or output, if named differently",
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON per record, then the receipt")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.inspect import InspectOptions, inspect_file

        inspect_file(
            InspectOptions(
                file=options.file,
                tokenizer=options.tokenizer,
                template=options.template,
                max_length=options.max_length,
                num_shown=options.records,
                fields=options.field,
                as_json=options.json,
            )
        )

    command.set_defaults(run=run)


def add_demo(commands: Commands) -> None:
    """``galpaca demo``."""
    command = commands.add_parser(
        "demo",
        help="train a small model on science facts and quiz it (two minutes on two cores)",
        description="Train a small GALACTICA-style model on records that ship with the package, then quiz it.",
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides as for train")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.demo import demo

        demo(options.overrides)

    command.set_defaults(run=run)
