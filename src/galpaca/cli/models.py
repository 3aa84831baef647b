"""Commands that use a model: generate, chat, compare, evaluate."""

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.cli.arguments import (
    Run,
    add_batch_size,
    add_reading,
    add_weights,
    optional_path,
    take_reading,
    take_weights,
)
from galpaca.data.pinned_date import TEMPLATE_DATE

if TYPE_CHECKING:
    from galpaca.app.options.models import ModelOptions


def add_generate(command: ArgumentParser) -> Run:
    """Generate answers with the prompt template that the model was trained with. Answers to a file are saved as they
    are generated; rerun the command to resume after an interruption.
    """
    _add_model_options(command)
    add = command.add_argument
    add("--instruction", metavar="TEXT", help="instruction to answer on standard output")
    add("--input", default="", metavar="TEXT", help="optional input for the instruction")
    file = "file of prompts, with columns instruction and input, or messages"
    add("--file", type=Path, metavar="PROMPTS", help=file)
    add(
        "--out",
        type=Path,
        metavar="ANSWERS",
        help="with --file: output file, in prompt order: .jsonl, .json, .csv or .tsv",
    )
    samples = "answers per prompt (default: 1)"
    add("--samples", dest="num_samples", type=int, default=1, metavar="N", help=samples)
    add_batch_size(command)
    add_reading(command, "instruction or input")

    def run(instruction: str | None, input: str, file: Path | None, out: Path | None, **options: Any) -> None:
        from galpaca.app.generate import generate_file, generate_one

        of_file = {"reading": take_reading(options), "batch_size": options.pop("batch_size")}
        if instruction is not None and file is None and out is None:
            generate_one(_model_options(**options), instruction, input)
        elif instruction is None and file is not None and out is not None and not input:
            generate_file(_model_options(**options), file, out, **of_file)
        else:
            command.error('give --instruction "..." [--input "..."], or --file PROMPTS --out ANSWERS')

    return run


def add_chat(command: ArgumentParser) -> Run:
    """Chat with a model in the terminal, or with --web in the browser; answers are streamed."""
    _add_model_options(command)
    command.add_argument("--web", action="store_true", help="serve a web page, for this machine alone")
    host = "with --web: address to listen on; one that other machines reach asks for a password (default: 127.0.0.1)"
    command.add_argument("--host", metavar="ADDRESS", help=host)
    command.add_argument("--port", type=int, metavar="PORT", help="with --web: port of the page (default: 7860)")

    def run(web: bool, host: str | None, port: int | None, **options: Any) -> None:
        for flag, given in (("--host", host), ("--port", port)):
            if given is not None and not web:
                command.error(f"{flag} requires --web")
        model = _model_options(**options)
        if web:
            from galpaca.app.chat.page import DEFAULT_HOST, DEFAULT_PORT, chat_page

            chat_page(model, DEFAULT_HOST if host is None else host, DEFAULT_PORT if port is None else port)
        else:
            from galpaca.app.chat.terminal import chat

            chat(model)

    return run


def add_compare(command: ArgumentParser) -> Run:
    """Run several models on the same prompts, one model at a time, measure their loss on records, and write
    one self-contained HTML file. Rerun the command to resume after an interruption.
    """
    add = command.add_argument
    models = (
        "released folder, adapter, run folder, RUN@STEP, folder of any causal model, or Hub id; LABEL=MODEL sets its "
        "label; differences are relative to the first"
    )
    add("models", nargs="+", metavar="MODEL", help=models)
    add("--out", required=True, type=Path, metavar="FILE", help="output page, e.g. compare.html")
    add("--json", type=optional_path, metavar="FILE", help="also write all metrics and answers as JSON")
    prompts = "prompts file with columns instruction, input, category (default: 64 built-in prompts)"
    add("--prompts", type=optional_path, metavar="FILE", help=prompts)
    records = "records with columns instruction, input, output, category; best held out from training"
    add("--records", type=optional_path, metavar="FILE", help=records)
    _add_split(command)
    length = "maximum length of an answer (default: 256)"
    add("--max-new-tokens", type=int, default=256, metavar="N", help=length)
    add_batch_size(command)
    add("--seed", type=int, default=0, metavar="SEED", help="bootstrap seed (default: 0)")
    add_reading(command, "instruction, input or output")
    _add_other_model_options(command)

    def run(**options: Any) -> None:
        from galpaca.app.evaluation.compare import CompareOptions, compare

        if options["records"] and options["split"]:
            command.error("give --records FILE or --split SIDE")
        compare(CompareOptions(reading=take_reading(options), weights=take_weights(options), **options))

    return run


def add_evaluate(command: ArgumentParser) -> Run:
    """Measure a model's loss and perplexity on records, or run tasks of EleutherAI's lm-eval (pip install
    'galpaca[evaluate]'). Results are saved in the model's evaluation/ folder and added to its card.
    """
    add = command.add_argument
    any_model = "released folder, adapter, run folder, RUN@STEP, folder of any causal model, or Hub id"
    add("model", metavar="MODEL", help=any_model)
    add("--records", type=Path, metavar="FILE", help="records with columns instruction, input, output, category")
    _add_split(command)
    add("--tasks", metavar="NAME[,NAME]", help="lm-eval tasks or groups")
    folder = "with --tasks: folder with your own task files"
    add("--include-path", type=optional_path, metavar="FOLDER", help=folder)
    add("--limit", type=int, metavar="N", help="with --tasks: use only the first N examples of each task")
    add_batch_size(command, "with --tasks: ")
    shots = "with --tasks: number of few-shot examples (default: the task's)"
    add("--num-fewshot", type=int, metavar="N", help=shots)
    instruct = "with --tasks: use the model's prompt template (default: for generative tasks only)"
    add("--instruct", action=BooleanOptionalAction, help=instruct)
    out = "results folder (default: evaluation/ in the model's folder)"
    add("--out", type=optional_path, metavar="FOLDER", help=out)
    add_reading(command, "instruction, input or output")
    _add_other_model_options(command)

    def run(records: Path | None, split: str | None, tasks: str | None, **options: Any) -> None:
        if sum(one is not None for one in (records, split, tasks)) != 1:
            command.error("give --records FILE, --split SIDE or --tasks NAME[,NAME]")
        names = ("include_path", "limit", "batch_size", "num_fewshot", "instruct")
        of_tasks, reading = {name: options.pop(name) for name in names}, take_reading(options)
        weights = take_weights(options)
        for name in [name for name, value in of_tasks.items() if tasks is None and value is not None]:
            command.error(f"--{name.replace('_', '-')} requires --tasks")
        from galpaca.app.evaluation.evaluate import EvaluateOptions, TaskOptions, evaluate_records, evaluate_tasks

        if tasks is None:
            evaluate_records(EvaluateOptions(weights=weights, **options), records, reading, split)
        else:
            wanted = [name.strip() for name in tasks.split(",") if name.strip()]
            evaluate_tasks(EvaluateOptions(weights=weights, **options), TaskOptions(wanted, **of_tasks))

    return run


def _add_split(command: ArgumentParser) -> None:
    words = "instead of a file: records of the model's run that it was not trained on (val, test), or was (train)"
    command.add_argument("--split", choices=("val", "test", "train"), help=words)


def _add_other_model_options(command: ArgumentParser) -> None:
    add_weights(command)
    template = "prompt template for models without one (default: plain text)"
    command.add_argument("--template", metavar="NAME", help=template)
    _add_template_date(command)
    length = "maximum length of a record (default: the model's context length)"
    command.add_argument("--max-length", type=int, metavar="TOKENS", help=length)


def _add_model_options(command: ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help="released folder, adapter, run folder, RUN@STEP, or Hub id")
    add("--max-new-tokens", type=int, metavar="N", help="maximum length of an answer (default: the model's)")
    temperature = "sampling temperature (default: 0, greedy)"
    add("--temperature", type=float, default=0.0, metavar="T", help=temperature)
    top_p = "nucleus sampling: smallest set of tokens with cumulative probability P (default: 1, off)"
    add("--top-p", type=float, default=1.0, metavar="P", help=top_p)
    add("--top-k", type=int, default=0, metavar="K", help="sample from the K most likely tokens (default: 0, off)")
    penalty = "penalty for repeated tokens (default: 1, off)"
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help=penalty)
    add("--seed", type=int, default=0, metavar="SEED", help="sampling seed (default: 0)")
    add_weights(command)
    add("--template", metavar="NAME", help="prompt template (default: the model's own)")
    _add_template_date(command)


def _add_template_date(command: ArgumentParser) -> None:
    day = (
        "what a tokenizer's own chat template takes for today (default: the date of the model's training, or of models "
        f"that galpaca has not trained, {TEMPLATE_DATE})"
    )
    command.add_argument("--template-date", metavar="DATE", help=day)


def _model_options(
    model: str,
    dtype: Any,
    template: str | None,
    template_date: str | None,
    max_new_tokens: int | None,
    **options: Any,
) -> "ModelOptions":
    from galpaca.app.options.models import ModelOptions
    from galpaca.inference.settings import Settings

    weights = take_weights(options)
    return ModelOptions(model, dtype, template, weights, Settings(**options), max_new_tokens, template_date)
