"""Records of another kind than the demo's: two of its questions at a time, and both answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from bench.results import REPOSITORY

_DEMO = REPOSITORY / "src" / "galpaca" / "demo"
# Chemistry, physics, biology, astronomy and the Earth, which come first in the file. Mathematics, medicine and
# computing are left: no pair of theirs is tuned on.
_NUM_TUNED = 94
# An epoch has as many rounds as a step has examples, so that it is whole steps.
_ROUNDS_HELD_OUT = 2
_SEED = 0

Record = dict[str, str]


class Fact(NamedTuple):
    """An answer's records, one for each wording of the question.

    Attributes:
        trained: wordings that the demo is trained on.
        held_out: the wording that it is not.
    """

    trained: tuple[Record, ...]
    held_out: Record


class Pairs(NamedTuple):
    """Records of two questions.

    Attributes:
        tuned: trained on; their wordings are those of the demo's records.
        held_out: other pairs of the same facts, in wordings that neither the demo nor these have.
        other_subjects: pairs of facts of other subjects, in such wordings.
    """

    tuned: list[Record]
    held_out: list[Record]
    other_subjects: list[Record]


def make_pairs(step_examples: int) -> Pairs:
    """Pairs of the demo's questions, ``tuned`` being a multiple of ``step_examples``."""
    chance = random.Random(_SEED)
    facts = read_facts()
    known, others = facts[:_NUM_TUNED], facts[_NUM_TUNED:]
    return Pairs(
        _rounds(known, step_examples, lambda fact: chance.choice(fact.trained), chance),
        _rounds(known, _ROUNDS_HELD_OUT, lambda fact: fact.held_out, chance),
        _rounds(others, _ROUNDS_HELD_OUT, lambda fact: fact.held_out, chance),
    )


def read_facts() -> list[Fact]:
    """The demo's facts, in the order of its file."""
    wordings = [tuple(group) for _, group in groupby(_read("records.json"), key=lambda record: record["output"])]
    held_out = {record["output"]: record for record in _read("held_out.json")}
    return [Fact(records, held_out[records[0]["output"]]) for records in wordings]


def _read(name: str) -> list[Record]:
    return list(json.loads((_DEMO / name).read_text(encoding="utf-8")))


def _rounds(
    facts: Sequence[Fact], num_rounds: int, worded: Callable[[Fact], Record], chance: random.Random
) -> list[Record]:
    """In each round, every fact is in one pair."""
    pairs = []
    for _ in range(num_rounds):
        order = chance.sample(facts, len(facts))
        pairs += [pair(worded(one), worded(other)) for one, other in zip(order[::2], order[1::2], strict=True)]
    return pairs


def pair(one: Record, other: Record) -> Record:
    """Two records in one."""
    questions, answers = f"{_question(one)} {_question(other)}", f"{one['output']} {other['output']}"
    return {"instruction": "Answer both questions.", "input": questions, "output": answers}


def _question(record: Record) -> str:
    return f"{record['instruction']} {record['input']}".strip()


def write_pairs(folder: Path, pairs: Pairs) -> None:
    """Writes ``tuned.json``, ``held_out.json`` and ``other_subjects.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in pairs._asdict().items():
        (folder / f"{name}.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
