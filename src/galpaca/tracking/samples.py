"""Sample answers as tables: each with the answers to the same question at earlier steps."""

from collections.abc import Iterable
from itertools import groupby

from galpaca.runs.lines import SampleLine

COLUMNS = ("prompt", "category", "answer", "earlier answers")


def sample_tables(lines: Iterable[SampleLine]) -> list[tuple[int, list[list[str]]]]:
    """Step and rows of ``COLUMNS`` of all answers of ``samples.jsonl``, in the order of steps."""
    earlier: dict[str, list[str]] = {}
    tables = []
    for step, answers in groupby(lines, lambda line: line.step):
        table = []
        for line in answers:
            prompt = "\n\n".join(filter(None, (line.instruction, line.input)))
            before = earlier.setdefault(prompt, [])
            table.append([prompt, line.category, line.answer, "\n\n".join(before)])
            before.append(f"step {step}: {line.answer}")
        tables.append((step, table))
    return tables
