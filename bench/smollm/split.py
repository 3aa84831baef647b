"""Which records are tuned on and which are the test, and of what kind each is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from galpaca.files.atomic import replace_file

TEST_SHARE = 0.18
# Of the answer, in characters.
_SHORT_ANSWER = 100
_WRITING = ("write", "generate", "create", "compose", "construct", "design", "develop", "make", "invent", "imagine")

Record = dict[str, str]
# How each category is told in words, in the order of the page.
CATEGORIES = {
    "about a text": "the record has an input",
    "short answer": f"no input, and an answer of at most {_SHORT_ANSWER} characters",
    "writing": "no input, and the instruction begins with write, generate, create or the like",
    "explaining": "all others: describe, explain, what, how, list",
}


def split(records: Sequence[Record], share: float = TEST_SHARE) -> tuple[list[Record], list[Record]]:
    """Records to tune on and test records, in the file's order.

    A record's side depends on its prompt alone, so no prompt is on both sides, and duplicates are not either.
    """
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[_place(record) < share].append(record)
    return sides


def _place(record: Record) -> float:
    """Where a prompt lies between 0 and 1."""
    return int(hashlib.sha256(f"{record['instruction']}{record['input']}".encode()).hexdigest()[:8], 16) / 2**32


def category_of(record: Record) -> str:
    """By the form of the record alone, since these records bring no categories."""
    if record["input"] and record["input"] != "<noinput>":
        return "about a text"
    if len(record["output"]) <= _SHORT_ANSWER:
        return "short answer"
    first = record["instruction"].split()[0].strip(".,:").lower()
    return "writing" if first in _WRITING else "explaining"


def in_categories(records: Sequence[Record]) -> list[Record]:
    """Each record with its category, ordered by it."""
    order = list(CATEGORIES)
    found = [{**record, "category": category_of(record)} for record in records]
    return sorted(found, key=lambda one: order.index(one["category"]))


def read_records(file: Path) -> list[Record]:
    found: list[Record] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write_records(file: Path, records: Sequence[Record]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
