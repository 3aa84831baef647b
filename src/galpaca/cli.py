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
    _add_export(commands)
    _add_demo(commands)
    _add_checkpoints(commands)
    _add_watch(commands)
    _add_report(commands)
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
        from galpaca.app.convert import convert_folder
        from galpaca.app.prepare import prepare

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


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_checkpoints(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_watch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "report",
        help="write a run, or several, as one page with plots",
        description="Writes one HTML file with a run's plots, answers, data, checkpoints, provenance and configuration, "
        "finished or not; several runs are drawn over each other. It needs no network and no account.",
    )
    command.add_argument("folders", nargs="+", metavar="RUN", help="run folders, for instance runs/galpaca67b")
    command.add_argument("--out", metavar="FILE", help="default: RUN/report.html; of several runs report.html")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.report import report

        report([Path(folder) for folder in options.folders], Path(options.out) if options.out else None)

    command.set_defaults(run=run)
