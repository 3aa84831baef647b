"""What a person does with a model: ask it, compare it, measure it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galpaca.app.asked_model import ModelOptions

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_generate(commands: Commands) -> None:
    """``galpaca generate``."""
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


def add_chat(commands: Commands) -> None:
    """``galpaca chat``."""
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
            from galpaca.app.chat.page import DEFAULT_PORT, chat_page

            chat_page(model, DEFAULT_PORT if options.port is None else options.port)
        else:
            from galpaca.app.chat.terminal import chat

            chat(model)

    command.set_defaults(run=run)


def add_compare(commands: Commands) -> None:
    """``galpaca compare``."""
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


def add_evaluate(commands: Commands) -> None:
    """``galpaca evaluate``."""
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


def _model_options(options: argparse.Namespace, num_samples: int) -> ModelOptions:
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
