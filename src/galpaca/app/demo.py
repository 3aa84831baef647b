"""``galpaca demo``: trains a small model on science facts, then quizzes it."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from rich.console import Console

from galpaca.app.config.composition import compose
from galpaca.app.console import make_console
from galpaca.data.records import Record
from galpaca.inference.settings import Settings
from galpaca.runs.folder import RunFolder

NUM_QUESTIONS = 40
_NUM_SHOWN = 5


@dataclass(frozen=True)
class Answered:
    """A question, the expected answer and the model's answer."""

    instruction: str
    input: str
    expected: str
    answer: str

    @property
    def right(self) -> bool:
        return self.answer == self.expected


def demo(overrides: Sequence[str]) -> None:
    """Trains (or resumes, or finds the run complete) and shows what the model learned.

    Args:
        overrides: ``KEY=VALUE`` on top of ``+experiment=demo``.
    """
    console = make_console()
    config, resolved = compose(["+experiment=demo", *overrides])
    from galpaca.app.train.run import train

    folder = train(config, resolved)
    trained, held_out = answer_questions(folder)
    _show(console, "questions worded as in training", trained)
    _show(console, "questions in unseen wording", held_out)
    model = folder.model
    console.print(f"\nThe model is {model}, its figures are {folder.metrics}, its card {model}/README.md.")
    console.print(f"To start over: rm -r {folder.path}")


def answer_questions(folder: RunFolder, num_questions: int = NUM_QUESTIONS) -> tuple[list[Answered], list[Answered]]:
    """Answers of the released model to questions it was trained on, and to wordings held out of training."""
    from galpaca.inference.answer import answer
    from galpaca.inference.loading import load

    loaded = load(str(folder.model))
    settings = Settings(max_new_tokens=loaded.max_new_tokens)

    def answered(name: str) -> list[Answered]:
        text = (resources.files("galpaca") / "demo" / name).read_text(encoding="utf-8")
        records = random.Random(0).sample(json.loads(text), num_questions)
        questions = [Record.of(record["instruction"], record["input"]) for record in records]
        answers = answer(loaded, questions, settings, batch_size=20)
        return [
            Answered(record["instruction"], record["input"], record["output"], given.text.strip())
            for record, given in zip(records, answers, strict=True)
        ]

    return answered("records.json"), answered("held_out.json")


def _show(console: Console, title: str, answered: Sequence[Answered]) -> None:
    right = sum(item.right for item in answered)
    console.print(f"\n[bold]{title}[/bold]: {right} of {len(answered)} answers match the record exactly")
    for item in answered[:_NUM_SHOWN]:
        question = f"{item.instruction} {item.input}".strip()
        console.print(f"  {question}", style="cyan", markup=False)
        console.print(f"    {item.answer}", style="green" if item.right else "red", markup=False)
        if not item.right:
            console.print(f"    (expected: {item.expected})", markup=False)
