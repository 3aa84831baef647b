"""Sample answers as tables: each with the answers to the same question at earlier steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

COLUMNS = ("prompt", "category", "answer", "earlier answers")


class SampleTables:
    """Makes a table of every step's answers, in the order of steps."""

    def __init__(self) -> None:
        self._earlier: dict[str, list[str]] = {}

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """Rows of ``COLUMNS``.

        Args:
            rows: rows with ``instruction``, ``answer``, and optionally ``input`` and ``category``.
        """
        made = []
        for row in rows:
            prompt = "\n\n".join(filter(None, (row["instruction"], row.get("input"))))
            earlier = self._earlier.setdefault(prompt, [])
            made.append([prompt, str(row.get("category") or ""), row["answer"], "\n\n".join(earlier)])
            earlier.append(f"step {step}: {row['answer']}")
        return made

    def tables(self, lines: Iterable[Mapping[str, Any]]) -> list[tuple[int, list[list[str]]]]:
        """Step and table of all answers of ``samples.jsonl``."""
        return [(step, self.table(step, list(rows))) for step, rows in groupby(lines, lambda line: int(line["step"]))]
