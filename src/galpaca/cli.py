"""The command ``galpaca``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from galpaca.app.doors import guarded


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
    return guarded(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="galpaca",
        description="Instruction-tuning for GALACTICA: from Alpaca-format records to a released model.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("train", help="train and release a model; the same as python train.py", add_help=False)
    _add_prepare(commands)
    _add_inspect(commands)
    _add_demo(commands)
    return parser


def _add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "prepare",
        help="fetch, convert and encode all that a run needs, where there is a network",
        description="Fetches the model and the records, writes the weights as safetensors, encodes the records and "
        "verifies it all, so that the run itself needs no network. The last line is the command that starts it.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="+experiment=NAME and all else, as for train"
    )
    command.add_argument("--weights", metavar="FOLDER", help="convert the pytorch_model*.bin of this folder, no more")
    command.add_argument("--out", metavar="FOLDER", help="where to (default: beside the .bin files)")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.prepare import convert_folder, prepare

        if options.weights is None and options.out is None:
            prepare(options.overrides)
        elif options.weights is None or options.overrides:
            command.error("--weights FOLDER [--out FOLDER] stands alone; without them, KEY=VALUE as for train")
        else:
            convert_folder(Path(options.weights), Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
