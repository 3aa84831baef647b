"""Sample answers as tables: each with the answers to the same question at earlier steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from galpaca.runs.lines import SampleLine

COLUMNS = ("prompt", "category", "answer", "earlier answers")


class SampleTables:
    """Makes a table of every step's answers, in the order of steps."""

    def __init__(self) -> None:
        self._earlier: dict[str, list[str]] = {}

    def table(self, step: int, rows: Sequence[SampleLine]) -> list[list[str]]:
        """Rows of ``COLUMNS``.

        Args:
            rows: lines of ``samples.jsonl``.
        """
        made = []
        for row in rows:
            prompt = "\n\n".join(filter(None, (row.instruction, row.input)))
            earlier = self._earlier.setdefault(prompt, [])
            made.append([prompt, row.category, row.answer, "\n\n".join(earlier)])
            earlier.append(f"step {step}: {row.answer}")
        return made

    def tables(self, lines: Iterable[SampleLine]) -> list[tuple[int, list[list[str]]]]:
        """Step and table of all answers of ``samples.jsonl``."""
        return [(step, self.table(step, list(rows))) for step, rows in groupby(lines, lambda line: line.step)]
