"""The command ``galpaca``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from galpaca.app.doors import guarded

if TYPE_CHECKING:
    from galpaca.app.asked_model import ModelOptions


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
    _add_rehearse(commands)
    _add_inspect(commands)
    _add_export(commands)
    _add_generate(commands)
    _add_chat(commands)
    _add_compare(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    _add_checkpoints(commands)
    _add_runs(commands)
    _add_watch(commands)
    _add_report(commands)
    _add_sync(commands)
    return parser


def _add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        from galpaca.app.convert import convert_folder
        from galpaca.app.prepare import prepare

        if options.weights is None and options.out is None:
            prepare(options.overrides)
        elif options.weights is None or options.overrides:
            command.error("--weights FOLDER [--out FOLDER] stands alone; without them, KEY=VALUE as for train")
        else:
            convert_folder(Path(options.weights), Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def _add_rehearse(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "generate",
        help="answer an instruction, or a file of them",
        description="Answers as the model was trained: with its template, up to </s>. The answers to a file are kept "
        "as they come, and the same command goes on where it was stopped.",
    )
    _add_model_options(command)
    command.add_argument("--instruction", metavar="TEXT", help="answer this one and print it")
    command.add_argument("--input", default="", metavar="TEXT", help="what the instruction is about")
    command.add_argument("--file", metavar="PROMPTS", help=".jsonl, .json, .csv, .tsv or .parquet: instruction, input")
    command.add_argument("--out", metavar="ANSWERS", help="with --file: a .jsonl, in the order of the prompts")
    command.add_argument("--samples", type=int, default=1, metavar="N", help="answers to each prompt (default: 1)")
    command.add_argument("--batch-size", type=int, metavar="N", help="prompts at a time (default: 16; on a CPU 8)")
    command.add_argument(
        "--field", action="append", default=[], metavar="FIELD=COLUMN", help="the file's column for instruction, input"
    )

    def run(options: argparse.Namespace) -> None:
        one, file = options.instruction is not None, options.file is not None
        if one == file or file != (options.out is not None) or (file and options.input):
            command.error('give --instruction "..." [--input "..."], or --file PROMPTS --out ANSWERS')
        from galpaca.app.generate import generate_file, generate_one

        model = _model_options(options, options.samples)
        if one:
            generate_one(model, options.instruction, options.input)
        else:
            generate_file(
                model, Path(options.file), Path(options.out), fields=options.field, batch_size=options.batch_size
            )

    command.set_defaults(run=run)


def _add_chat(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "chat",
        help="ask a model in the terminal, or on a page in the browser",
        description="Asks a model in the terminal; its answer is shown while it is written.",
    )
    _add_model_options(command)
    command.add_argument("--web", action="store_true", help="a page that only this machine can open")
    command.add_argument("--port", type=int, metavar="N", help="of the page (default: 7860)")

    def run(options: argparse.Namespace) -> None:
        if options.port is not None and not options.web:
            command.error("--port goes with --web")
        model = _model_options(options, 1)
        if options.web:
            from galpaca.app.chat_page import DEFAULT_PORT, chat_page

            chat_page(model, DEFAULT_PORT if options.port is None else options.port)
        else:
            from galpaca.app.chat import chat

            chat(model)

    command.set_defaults(run=run)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "compare",
        help="ask several models the same, and write their answers and losses side by side",
        description="Asks several models the same prompts, one model after the other, measures their loss on held-out "
        "records, and writes one HTML file that needs no network. The same command goes on where it was stopped.",
    )
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a released folder, a run's folder, any causal model's folder, or a "
        "name on the Hub; LABEL=MODEL calls it so; differences are to the first",
    )
    command.add_argument("--out", required=True, metavar="FILE", help="the page, for instance compare.html")
    command.add_argument("--json", metavar="FILE", help="all figures and answers too")
    command.add_argument(
        "--prompts", metavar="FILE", help="instruction, input, category (default: 64 that ship with it)"
    )
    command.add_argument("--records", metavar="FILE", help="held-out records: instruction, input, output, category")
    command.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of an answer (default: 256)")
    command.add_argument("--batch-size", type=int, metavar="N", help="prompts at a time (default: 16; on a CPU 8)")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    _add_other_model_options(command)

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.compare import CompareOptions, compare

        compare(
            CompareOptions(
                models=options.models,
                out=Path(options.out),
                json=Path(options.json) if options.json else None,
                prompts=Path(options.prompts) if options.prompts else None,
                records=Path(options.records) if options.records else None,
                dtype=options.dtype,
                template=options.template,
                max_new_tokens=options.max_new_tokens,
                batch_size=options.batch_size,
                max_length=options.max_length,
                seed=options.seed,
            )
        )

    command.set_defaults(run=run)


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure a model: its loss on records, or tasks of EleutherAI's lm-eval",
        description="Measures a model's loss and perplexity on records, or runs tasks of EleutherAI's lm-eval (pip "
        "install 'galpaca[evaluate]'). Results are kept in the model's folder evaluation/ and told in its card.",
    )
    command.add_argument("model", metavar="MODEL", help="a released folder, a run's folder, any causal model's folder")
    command.add_argument("--records", metavar="FILE", help="records: instruction, input, output, category")
    command.add_argument("--tasks", metavar="NAME[,NAME]", help="tasks of lm-eval")
    command.add_argument("--include-path", metavar="FOLDER", help="with --tasks: your own task files")
    command.add_argument("--limit", type=int, metavar="N", help="with --tasks: the first N examples of each")
    command.add_argument("--batch-size", type=int, metavar="N", help="with --tasks (default: 16; on a CPU 8)")
    command.add_argument("--num-fewshot", type=int, metavar="N", help="with --tasks: solved examples in the prompt")
    command.add_argument(
        "--instruct",
        action=argparse.BooleanOptionalAction,
        help="with --tasks: ask in the model's template (default: only tasks in which it writes an answer)",
    )
    command.add_argument("--out", metavar="FOLDER", help="of the results (default: the model's evaluation/)")
    _add_other_model_options(command)

    def run(options: argparse.Namespace) -> None:
        if (options.records is None) == (options.tasks is None):
            command.error("give --records FILE or --tasks NAME[,NAME]")
        of_tasks = ("include_path", "limit", "batch_size", "num_fewshot", "instruct")
        for name in [name for name in of_tasks if options.tasks is None and getattr(options, name) is not None]:
            command.error(f"--{name.replace('_', '-')} goes with --tasks")
        from galpaca.app.evaluate import EvaluateOptions, evaluate_records, evaluate_tasks

        given = EvaluateOptions(
            model=options.model,
            out=Path(options.out) if options.out else None,
            dtype=options.dtype,
            template=options.template,
            max_length=options.max_length,
        )
        if options.records is not None:
            evaluate_records(given, Path(options.records))
            return
        from galpaca.app.evaluate import TaskOptions

        tasks = TaskOptions(
            names=[name.strip() for name in options.tasks.split(",") if name.strip()],
            include_path=Path(options.include_path) if options.include_path else None,
            limit=options.limit,
            batch_size=options.batch_size,
            num_fewshot=options.num_fewshot,
            instruct=options.instruct,
        )
        evaluate_tasks(given, tasks)

    command.set_defaults(run=run)


def _add_other_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: the folder's on a GPU, float32 on a CPU"
    )
    command.add_argument("--template", metavar="NAME", help="for models that bring none (default: plain text)")
    command.add_argument(
        "--max-length", type=int, metavar="TOKENS", help="of a record (default: as many as the model can read)"
    )


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a released folder, a run's folder, or a name on the Hub")
    command.add_argument("--max-new-tokens", type=int, metavar="N", help="of an answer (default: what the model says)")
    command.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="default: 0, the likeliest token each time"
    )
    command.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest, of this sum")
    command.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest (default: all)")
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="default: 1, none")
    command.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: the folder's on a GPU, float32 on a CPU",
    )
    command.add_argument("--template", metavar="NAME", help="where the folder says none, or to ask otherwise")


def _model_options(options: argparse.Namespace, num_samples: int) -> "ModelOptions":
    from galpaca.app.asked_model import ModelOptions
    from galpaca.inference.settings import Settings

    settings = Settings(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        num_samples=num_samples,
    )
    return ModelOptions(options.model, options.dtype, options.template, settings, options.max_new_tokens)


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


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        description="Writes one HTML file with the plots, answers, data, checkpoints, provenance and configuration of "
        "a run, finished or not; several runs are drawn over each other. It needs no network and no account.",
    )
    command.add_argument("folders", nargs="+", metavar="RUN", help="run folders, for instance runs/galpaca67b")
    command.add_argument("--out", metavar="FILE", help="default: RUN/report.html; of several runs report.html")

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.report import report

        report([Path(folder) for folder in options.folders], Path(options.out) if options.out else None)

    command.set_defaults(run=run)


def _add_sync(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
