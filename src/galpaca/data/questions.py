"""Questions for a model: rows of a file that need no answer, whatever else they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from galpaca.data.reading import Reading, records_of
from galpaca.data.records import Record, Turn
from galpaca.data.sources.table import Source
from galpaca.errors import Problems


@dataclass(frozen=True)
class Question:
    """A question to a model.

    Attributes:
        record: what to answer: the last turn, whose output is empty, after those before it.
        where: file, number and line, for messages.
        row: the complete row, unchanged.
    """

    record: Record
    where: str
    row: dict[str, Any]

    @property
    def instruction(self) -> str:
        return self.record.turns[-1].instruction

    @property
    def input(self) -> str:
        return self.record.turns[-1].input


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions as the model is to see them.

    Attributes:
        prompts: token ids of each prompt.
        end_ids: tokens that end an answer.
        max_positions: context length of the model.
    """

    prompts: Sequence[Sequence[int]]
    end_ids: tuple[int, ...]
    max_positions: int


def load_questions(source: Source, reading: Reading | None = None, reserved: Sequence[str] = ()) -> list[Question]:
    """Reads and checks all questions of a source.

    Args:
        reserved: columns that a row must not have, since the answer will stand there.

    Raises:
        InputError: anything wrong in it; all problems at once.
    """
    table, reading = source.table(), replace(reading or Reading(), is_questions=True)
    with Problems() as problems:
        found = problems.collect(lambda: records_of(table, source.name, reading))
        for index, row in enumerate(table.values):
            for name in [name for name in reserved if isinstance(row, dict) and name in row]:
                what = f"column name {name!r} is reserved for the output"
                problems.add(what, where=table.where(index), fix=f"rename the column {name!r}")
        questions = [
            Question(_without_answer(record), table.where(index), row)
            for index, (record, row) in enumerate(zip(found.records if found else [], table.values, strict=False))
        ]
    return questions


def _without_answer(record: Record) -> Record:
    *earlier, last = record.turns
    return Record((*earlier, Turn(last.instruction, last.input, "")), record.system)
