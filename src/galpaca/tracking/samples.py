"""Sample answers as tables: each with the answers to the same question at earlier steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

COLUMNS = ("prompt", "category", "answer", "earlier answers")


def sample_tables(lines: Iterable[Mapping[str, Any]]) -> list[tuple[int, list[list[str]]]]:
    """Step and rows of ``COLUMNS`` of all answers of ``samples.jsonl``, in the order of steps."""
    earlier: dict[str, list[str]] = {}
    tables = []
    for step, answers in groupby(lines, lambda line: int(line["step"])):
        table = []
        for line in answers:
            prompt = "\n\n".join(filter(None, (line["instruction"], line.get("input"))))
            before = earlier.setdefault(prompt, [])
            table.append([prompt, str(line.get("category") or ""), line["answer"], "\n\n".join(before)])
            before.append(f"step {step}: {line['answer']}")
        tables.append((step, table))
    return tables
