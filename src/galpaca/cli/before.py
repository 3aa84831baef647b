"""What a person does before a run, and with the demo."""

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
        help="fetch, convert and encode all that a run needs, where there is a network",
        description="Fetches the model and the records, writes the weights as safetensors, encodes the records and "
        "verifies it all, so that the run itself needs no network. The last line starts or submits it.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="+experiment=NAME and all else, as for train"
    )
    command.add_argument("--weights", metavar="FOLDER", help="convert the pytorch_model*.bin of this folder, no more")
    command.add_argument("--out", metavar="FOLDER", help="where to (default: beside the .bin files)")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.prepare import prepare
        from galpaca.app.prepared.convert import convert_folder

        if options.weights is None and options.out is None:
            prepare(options.overrides)
        elif options.weights is None or options.overrides:
            command.error("--weights FOLDER [--out FOLDER] stands alone; without them, KEY=VALUE as for train")
        else:
            convert_folder(Path(options.weights), Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def add_rehearse(commands: Commands) -> None:
    """``galpaca rehearse``."""
    command = commands.add_parser(
        "rehearse",
        help="try a run's life on its own machine: memory, speed, hours, and whether it fits",
        description="Trains on the longest steps of the run's plan, is killed, goes on, exports and loads again, and "
        "tells what the whole run will take. The run's own folder is left alone. Under srun or torchrun with one "
        "process for each GPU, or alone in a terminal.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="+experiment=NAME and all else, as for train"
    )
    command.add_argument("--steps", type=int, default=20, metavar="N", help="how many to take (default: 20)")
    command.add_argument("--minutes", type=float, default=30, metavar="M", help="give up after (default: 30)")
    command.add_argument("--keep", action="store_true", help="leave the rehearsal's folder")
    command.add_argument("--json", action="store_true", help="one line of JSON instead of rows")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.rehearse import RehearseOptions, rehearse

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
        description="Shows records as the model will see them, what carries loss in colour, with the receipt.",
    )
    command.add_argument("file", metavar="FILE", help=".json, .jsonl, .csv, .tsv or .parquet")
    command.add_argument("--tokenizer", required=True, metavar="DIR", help="folder or Hub id")
    command.add_argument("--template", default="alpaca", help="a shipped template or a .yaml file (default: alpaca)")
    command.add_argument("--max-length", type=int, default=512, metavar="TOKENS", help="default: 512")
    command.add_argument("--records", type=int, default=3, metavar="N", help="how many to show (default: 3)")
    command.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="the file's column for instruction, input or output",
    )
    command.add_argument("--json", action="store_true", help="one line of JSON for every record, the receipt last")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.inspect import inspect_file

        inspect_file(
            options.file,
            tokenizer_path=options.tokenizer,
            template_name=options.template,
            max_length=options.max_length,
            num_shown=options.records,
            fields=options.field,
            as_json=options.json,
        )

    command.set_defaults(run=run)


def add_demo(commands: Commands) -> None:
    """``galpaca demo``."""
    command = commands.add_parser(
        "demo",
        help="train a small model of science facts and ask it (two minutes on two cores)",
        description="Trains a small model of the GALACTICA shape on records that ship with the package, then asks it.",
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.demo import demo

        demo(options.overrides)

    command.set_defaults(run=run)
