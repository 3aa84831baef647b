"""The prompts that ship with the package."""

from collections import Counter
from importlib import resources
from pathlib import Path

from galpaca.data.categories import categories_of
from galpaca.data.questions import load_questions
from galpaca.data.sources.files import FileSource

PROMPTS = Path(str(resources.files("galpaca"))) / "inference" / "prompts.jsonl"


def test_they_are_many_of_several_kinds_and_no_two_are_the_same() -> None:
    source = FileSource(PROMPTS)
    questions = load_questions(source)
    counts = Counter(categories_of([row.get("category") for row in source.table().values]))
    assert len(questions) >= 60
    assert len(counts) >= 6
    assert min(counts.values()) >= 8
    assert len({(one.instruction, one.input) for one in questions}) == len(questions)
    assert all(set(one.row) == {"category", "instruction", "input"} for one in questions)
