"""``galpaca compare``: several models on the same prompts and records, side by side on one page."""

import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import galpaca
from galpaca.app.console import make_console, show_rows
from galpaca.app.evaluation.inputs import AskedPrompts, HeldOut, fingerprint_as_read, read_records, records_of_split
from galpaca.app.evaluation.labelled_models import LabelledModel, labelled_models
from galpaca.app.evaluation.loading import check_date
from galpaca.app.evaluation.measure import EvaluationSettings, measure
from galpaca.app.options.names import ReadingOptions, with_option_names
from galpaca.app.report import check_replaceable
from galpaca.app.run_data import trained_on
from galpaca.data.categories import COLUMN as CATEGORY
from galpaca.data.categories import categories_of
from galpaca.data.prompts import find_template
from galpaca.data.questions import load_questions
from galpaca.data.sources.files import open_files
from galpaca.errors import InputError, Problems
from galpaca.estimate.bootstrap import LEVEL, NUM_RESAMPLES
from galpaca.files.atomic import replace_file
from galpaca.inference.figures import Measured, answer_rows, loss_rows
from galpaca.report.comparison import render_comparison, summary

SHIPPED_PROMPTS = "galpaca's own"


@dataclass(frozen=True, kw_only=True)
class CompareOptions(EvaluationSettings):
    """Options of ``galpaca compare``.

    Attributes:
        models: ``MODEL`` or ``LABEL=MODEL``; differences are relative to the first.
        out: output HTML file.
        json: optional JSON file with all metrics.
        prompts: prompts file; None uses the built-in prompts.
        records: file of held-out records.
        reading: how prompts and records are read.
        split: instead of a file, records of the run that a model is of: ``val``, ``test`` or ``train``.
        seed: seed of the bootstrap.
    """

    models: Sequence[str]
    out: Path
    json: Path | None = None
    prompts: Path | None = None
    records: Path | None = None
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    split: str | None = None
    seed: int = 0


@with_option_names()
def compare(options: CompareOptions) -> None:
    """Runs each model in turn and writes the page. Answers are cached beside it, so a rerun resumes.

    Raises:
        InputError: invalid models, prompts, records or paths, all reported before a model is loaded.
    """
    console = make_console()
    models, prompts, held_out = _door(options, console)
    cache = options.out.with_name(f"{options.out.stem}.answers")
    cache.mkdir(exist_ok=True)
    measured = []
    for number, one in enumerate(models, start=1):
        console.print(f"{number} of {len(models)}: {one.label}", style="bold", markup=False)
        measured.append(measure(one, prompts, held_out, options, cache, console))
        gc.collect()  # before the next one needs the memory
    content = _content(options, prompts, held_out, measured)
    if held_out is not None:
        content["records"]["trained_on"] = {
            one.label: trained_on(one.model, held_out.records, console).count for one in models
        }
    _write(options, content, console)


def _door(options: CompareOptions, console: Console) -> tuple[list[LabelledModel], AskedPrompts, HeldOut | None]:
    problems = Problems()
    if len(options.models) < 2:
        problems.add(
            f"compare needs at least two models, got {len(options.models)}",
            where="MODEL",
            fix="name two or more; to measure one model, use galpaca evaluate MODEL --records FILE",
        )
    models = labelled_models(options.models, problems)
    counts = {"max-new-tokens": options.max_new_tokens, "batch-size": options.batch_size}
    problems.check_at_least_one("--", {**counts, "max-length": options.max_length})
    prompts = problems.collect(lambda: _prompts(options.prompts, options.reading))
    held_out = problems.collect(lambda: _records(options, models, console))
    problems.collect(lambda: check_date(options.template_date))
    if options.template:
        template = options.template
        problems.collect(lambda: find_template(template))
    problems.collect(lambda: check_replaceable(options.out, "galpaca compare"))
    for path in [options.out, *([options.json] if options.json else [])]:
        if path.is_dir() and path != options.out:
            problems.add("expected a file, found a folder", where=path, fix="name a file in it")
        elif not path.absolute().parent.is_dir():
            problems.add("no such folder", where=path.parent, fix="create it, or choose another folder")
    problems.raise_any()
    assert prompts is not None
    return models, prompts, held_out


def _records(options: CompareOptions, models: Sequence[LabelledModel], console: Console) -> HeldOut | None:
    if options.split is not None:
        return records_of_split([one.model for one in models], options.split, console)
    return None if options.records is None else read_records(options.records, options.reading)


def _prompts(path: Path | None, options: ReadingOptions) -> AskedPrompts:
    shipped = Path(str(resources.files("galpaca"))) / "inference" / "prompts.jsonl"
    source = open_files(str(path or shipped))
    reading = options.reading() if path else None
    questions = load_questions(source, reading)
    name = path.name if path else SHIPPED_PROMPTS
    categories = categories_of([one.row.get(CATEGORY) for one in questions])
    return AskedPrompts(name, questions, categories, fingerprint_as_read(source, options if path else ReadingOptions()))


def _content(
    options: CompareOptions, prompts: AskedPrompts, held_out: HeldOut | None, measured: Sequence[Any]
) -> dict[str, Any]:
    """Everything that the page shows and the JSON file contains."""
    answers = [one.answers for one in measured]
    return {
        "galpaca": galpaca.__version__,
        "written_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "models": [asdict(one.facts) for one in measured],
        "prompts": {
            "source": prompts.source,
            "sha256": prompts.fingerprint,
            "count": len(prompts.questions),
            "max_new_tokens": options.max_new_tokens,
        },
        "answer_figures": answer_rows(prompts.categories, answers),
        "questions": [
            {
                "category": category,
                "instruction": question.instruction,
                "input": question.input,
                "answers": [_shown(given[index]) for given in answers],
            }
            for index, (question, category) in enumerate(zip(prompts.questions, prompts.categories, strict=True))
        ],
        "records": None if held_out is None else _of_records(options, held_out, measured),
    }


_OF_AN_ANSWER = ("answer", "finish", "tokens", "words", "seconds")


def _shown(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in _OF_AN_ANSWER}


def _of_records(options: CompareOptions, held_out: HeldOut, measured: Sequence[Any]) -> dict[str, Any]:
    losses, num_records = [one.losses for one in measured], len(held_out.records)
    # A record that is truncated for one model alone would not be the same text for all.
    used = [i for i in range(num_records) if not any(one[i].is_truncated or not one[i].num_targets for one in losses)]
    if not used:
        raise InputError(
            f"none of the {num_records:,} records fits into the context of every model",
            where=held_out.source,
            fix="use shorter records, or a larger --max-length",
        )
    figures = Measured(
        categories=[held_out.categories[i] for i in used],
        nll=np.array([[one[i].nll for i in used] for one in losses]),
        tokens=np.array([[one[i].num_targets for i in used] for one in losses], float),
        num_bytes=np.array([held_out.records[i].num_answer_bytes for i in used], float),
    )
    return {
        "source": held_out.source,
        "sha256": held_out.fingerprint,
        "count": len(used),
        "left_out": num_records - len(used),
        "without_output": sum(not held_out.records[i].num_answer_bytes for i in used),
        "max_length": options.max_length,
        "tokens_are_comparable": len({one.facts.vocabulary for one in measured}) == 1,
        "bootstrap": {"resamples": NUM_RESAMPLES, "level": LEVEL, "seed": options.seed},
        "loss": loss_rows(figures, seed=options.seed),
    }


def _write(options: CompareOptions, content: Mapping[str, Any], console: Console) -> None:
    try:
        if options.json:
            text = json.dumps(content, indent=1, ensure_ascii=False)
            replace_file(options.json, text + "\n")
        replace_file(options.out, render_comparison(content))
    except OSError as error:
        raise InputError(
            f"cannot write the page: {error.strerror}",
            where=options.out,
            why="answers are kept: rerunning the command writes the page from them",
            fix="free disk space, or choose another --out",
        ) from None
    files = [("page", str(options.out)), *([("figures", str(options.json))] if options.json else [])]
    show_rows(console, "compared", [*summary(content), *files])
