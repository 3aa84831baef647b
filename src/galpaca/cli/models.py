"""Commands that use a model: generate, chat, compare, evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galpaca.app.model_options import ModelOptions

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_generate(commands: Commands) -> None:
    """``galpaca generate``."""
    command = commands.add_parser(
        "generate",
        help="answer one instruction, or a file of them",
        description="Generate answers with the prompt template that the model was trained with. Answers to a file are "
        "saved as they are generated; rerun the command to resume after an interruption.",
    )
    _add_model_options(command)
    command.add_argument("--instruction", metavar="TEXT", help="instruction to answer on standard output")
    command.add_argument("--input", default="", metavar="TEXT", help="optional input for the instruction")
    command.add_argument(
        "--file",
        metavar="PROMPTS",
        help="prompts file (.jsonl, .json, .csv, .tsv, .parquet) with columns instruction and input",
    )
    command.add_argument("--out", metavar="ANSWERS", help="with --file: output .jsonl file, in prompt order")
    command.add_argument("--samples", type=int, default=1, metavar="N", help="answers per prompt (default: 1)")
    command.add_argument(
        "--batch-size", type=int, metavar="N", help="prompts per batch (default: 16 on a GPU, 8 on a CPU)"
    )
    command.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="column for instruction or input, if named differently",
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
        help="chat with a model in the terminal or in the browser",
        description="Chat with a model in the terminal, or with --web in the browser; answers are streamed.",
    )
    _add_model_options(command)
    command.add_argument("--web", action="store_true", help="serve a web page on localhost")
    command.add_argument("--port", type=int, metavar="PORT", help="with --web: port of the page (default: 7860)")

    def run(options: argparse.Namespace) -> None:
        if options.port is not None and not options.web:
            command.error("--port requires --web")
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
        help="compare answers and losses of several models on one page",
        description="Run several models on the same prompts, one model at a time, measure their loss on held-out "
        "records, and write one self-contained HTML file. Rerun the command to resume after an interruption.",
    )
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="released folder, run folder, folder of any causal model, or Hub id; LABEL=MODEL sets its label; "
        "differences are relative to the first",
    )
    command.add_argument("--out", required=True, metavar="FILE", help="output page, e.g. compare.html")
    command.add_argument("--json", metavar="FILE", help="also write all metrics and answers as JSON")
    command.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts file with columns instruction, input, category (default: 64 built-in prompts)",
    )
    command.add_argument(
        "--records", metavar="FILE", help="held-out records with columns instruction, input, output, category"
    )
    command.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="maximum length of an answer (default: 256)"
    )
    command.add_argument(
        "--batch-size", type=int, metavar="N", help="prompts per batch (default: 16 on a GPU, 8 on a CPU)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="SEED", help="bootstrap seed (default: 0)")
    _add_other_model_options(command)

    def run(options: argparse.Namespace) -> None:
        from galpaca.app.evaluation.compare import CompareOptions, compare

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
        help="evaluate a model: loss on records, or lm-eval tasks",
        description="Measure a model's loss and perplexity on records, or run tasks of EleutherAI's lm-eval (pip "
        "install 'galpaca[evaluate]'). Results are saved in the model's evaluation/ folder and added to its card.",
    )
    command.add_argument(
        "model", metavar="MODEL", help="released folder, run folder, folder of any causal model, or Hub id"
    )
    command.add_argument("--records", metavar="FILE", help="records with columns instruction, input, output, category")
    command.add_argument("--tasks", metavar="NAME[,NAME]", help="lm-eval tasks or groups")
    command.add_argument("--include-path", metavar="FOLDER", help="with --tasks: folder with your own task files")
    command.add_argument(
        "--limit", type=int, metavar="N", help="with --tasks: use only the first N examples of each task"
    )
    command.add_argument(
        "--batch-size", type=int, metavar="N", help="with --tasks: prompts per batch (default: 16 on a GPU, 8 on a CPU)"
    )
    command.add_argument(
        "--num-fewshot", type=int, metavar="N", help="with --tasks: number of few-shot examples (default: the task's)"
    )
    command.add_argument(
        "--instruct",
        action=argparse.BooleanOptionalAction,
        help="with --tasks: use the model's prompt template (default: for generative tasks only)",
    )
    command.add_argument("--out", metavar="FOLDER", help="results folder (default: evaluation/ in the model's folder)")
    _add_other_model_options(command)

    def run(options: argparse.Namespace) -> None:
        if (options.records is None) == (options.tasks is None):
            command.error("give --records FILE or --tasks NAME[,NAME]")
        of_tasks = ("include_path", "limit", "batch_size", "num_fewshot", "instruct")
        for name in [name for name in of_tasks if options.tasks is None and getattr(options, name) is not None]:
            command.error(f"--{name.replace('_', '-')} requires --tasks")
        from galpaca.app.evaluation.evaluate import EvaluateOptions, evaluate_records, evaluate_tasks

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
        from galpaca.app.evaluation.evaluate import TaskOptions

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
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the weights (default: the model's own on a GPU, float32 on a CPU)",
    )
    command.add_argument(
        "--template", metavar="NAME", help="prompt template for models without one (default: plain text)"
    )
    command.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="maximum length of a record (default: the model's context length)",
    )


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="released folder, run folder, or Hub id")
    command.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="maximum length of an answer (default: the model's)"
    )
    command.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="sampling temperature (default: 0, greedy)"
    )
    command.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="nucleus sampling: smallest set of tokens with cumulative probability P (default: 1, off)",
    )
    command.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="sample from the K most likely tokens (default: 0, off)"
    )
    command.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="penalty for repeated tokens (default: 1, off)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="SEED", help="sampling seed (default: 0)")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the weights (default: the model's own on a GPU, float32 on a CPU)",
    )
    command.add_argument("--template", metavar="NAME", help="prompt template (default: the model's own)")


def _model_options(options: argparse.Namespace, num_samples: int) -> ModelOptions:
    from galpaca.app.model_options import ModelOptions
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
