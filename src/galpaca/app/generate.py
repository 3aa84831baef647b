"""``galpaca generate``: answers one instruction, or a file of them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import galpaca
from galpaca.app.console import counting, make_console, show_rows
from galpaca.app.options.models import ModelOptions
from galpaca.app.options.names import ReadingOptions, with_option_names
from galpaca.data.questions import Question, load_questions
from galpaca.data.records import Record
from galpaca.data.sources.files import open_files
from galpaca.errors import InputError, Problems, StoppedBySignal
from galpaca.inference.answers_file import AnswersFile
from galpaca.inference.settings import Settings

if TYPE_CHECKING:
    from galpaca.inference.answer import Answer
    from galpaca.inference.loading import Loaded

# Keys that a line of answers adds to the columns of its prompt.
RESERVED = ("index", "sample", "answer", "finish", "prompt_tokens", "answer_tokens")

_FINISHES = {
    "end": "ended by the model",
    "length": "truncated at --max-new-tokens",
    "positions": "truncated at the model's context length",
}


@with_option_names()
def generate_one(options: ModelOptions, instruction: str, input: str) -> None:
    """Prints the answer to one instruction, or its samples with a separator line before each.

    Raises:
        InputError: invalid options, model or instruction.
    """
    if not instruction.strip():
        raise InputError("the instruction is empty", where="--instruction", fix='--instruction "Name a noble gas."')
    options.check()
    console = make_console(stderr=True)
    loaded, settings = options.load(console)
    from galpaca.inference.answer import answer

    for one in answer(loaded, [Record.of(instruction, input)], settings):
        if settings.num_samples > 1:
            print(f"--- {one.answer_id.sample + 1}")
        print(one.text)
        if one.finish != "end":
            sys.stdout.flush()
            console.print(f"({_FINISHES[one.finish]})", style="yellow")


@with_option_names()
def generate_file(
    options: ModelOptions, file: Path, out: Path, *, reading: ReadingOptions, batch_size: int | None
) -> None:
    """Answers a file of prompts, resuming where an earlier run stopped.

    Args:
        reading: how the file is read.
        batch_size: prompts per batch; None means 16 on a GPU and 8 on a CPU.

    Raises:
        InputError: invalid options, model, prompts or existing answers; nothing is written.
    """
    console = make_console()
    options.check()
    with Problems() as problems:
        problems.check_at_least_one("--", {"batch-size": batch_size})
    wanted = reading.reading(("instruction", "input"))
    questions = load_questions(open_files(str(file)), wanted, RESERVED)
    answers = AnswersFile(out, ("index", "sample"))
    given = _given(options, questions)
    answers.check(given)
    loaded, settings = options.load(console)
    given |= {"max_new_tokens": settings.max_new_tokens, "model_fingerprint": loaded.fingerprint}
    _answer_all(loaded, settings, questions, answers, given, batch_size)


def _answer_all(
    loaded: Loaded,
    settings: Settings,
    questions: Sequence[Question],
    answers: AnswersFile,
    given: Mapping[str, Any],
    batch_size: int | None,
) -> None:
    """Generates what is missing.

    Args:
        given: what must not change on resume.
    """
    from galpaca.inference.answer import answer_batches, check_lengths, wanted

    console = make_console()
    records = [one.record for one in questions]
    if note := loaded.note_on_turns(records):
        console.print(note, style="yellow", markup=False)
    prompts = loaded.prompt_ids(records)
    check_lengths(prompts, loaded.positions, [one.where for one in questions])
    every = wanted(prompts, settings.num_samples)
    with answers.writing(given, _notes(loaded)):
        left = [] if answers.complete else [one for one in every if not answers.answered(one.answer_id)]
        if answers.complete:
            console.print(f"All {len(every):,} answers are already done: {answers.out}", markup=False)
            return
        if len(left) < len(every):
            console.print(f"{len(every) - len(left):,} of {len(every):,} answers are already done")
        size = batch_size or (8 if loaded.model.device.type == "cpu" else 16)
        try:
            with counting(console, f"answers ({loaded.device_dtype})", len(every)) as progress:
                for some in answer_batches(loaded, left, settings, size):
                    answers.append([_line(questions[one.answer_id.prompt], one) for one in some])
                    progress(len(answers.lines))
        except (StoppedBySignal, KeyboardInterrupt):
            console.print(f"{len(answers.lines):,} of {len(every):,} answers are saved; rerun the command to resume")
            raise
        answers.finish()
    _summary(console, answers)


def _given(options: ModelOptions, questions: Sequence[Question]) -> dict[str, Any]:
    """What must not change on resume, as far as it is known before the model is loaded."""
    rows = json.dumps([[one.instruction, one.input, one.row] for one in questions], sort_keys=True, default=str)
    settings = asdict(options.settings)
    if options.max_new_tokens is None:
        del settings["max_new_tokens"]  # the model's, not known yet
    else:
        settings["max_new_tokens"] = options.max_new_tokens
    return {"prompts_sha256": hashlib.sha256(rows.encode()).hexdigest(), "num_prompts": len(questions), **settings}


def _notes(loaded: Loaded) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "model": loaded.name,
        "device_dtype": loaded.device_dtype,
        "versions": {"galpaca": galpaca.__version__, **{name: version(name) for name in ("torch", "transformers")}},
    }


def _line(question: Question, answer: Answer) -> dict[str, Any]:
    return {
        **question.row,
        "index": answer.answer_id.prompt,
        "sample": answer.answer_id.sample,
        "answer": answer.text,
        "finish": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "answer_tokens": answer.answer_tokens,
    }


def _summary(console: Console, answers: AnswersFile) -> None:
    finishes = Counter(line["finish"] for line in answers.lines)
    tokens = sum(line["answer_tokens"] for line in answers.lines)
    show_rows(
        console,
        f"{len(answers.lines):,} answers, {tokens:,} tokens",
        [
            *((_FINISHES[name], f"{finishes[name]:,}") for name in _FINISHES if finishes[name]),
            ("file", str(answers.out)),
        ],
    )
