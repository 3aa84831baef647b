"""Questions for a model: rows of a file with an instruction and an input that may be empty, whatever else they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.data.records import Record, checked_records, columns_of, place_of
from galpaca.data.sources import Source
from galpaca.errors import Problems


@dataclass(frozen=True)
class Question:
    """A question to a model.

    Attributes:
        instruction: what to do.
        input: what to do it with; empty where there is none.
        where: file, number and line, for messages.
        row: the complete row, unchanged.
    """

    instruction: str
    input: str
    where: str
    row: dict[str, Any]

    @property
    def record(self) -> Record:
        return Record.of(self.instruction, self.input)


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions as the model is to see them.

    Attributes:
        prompts: token ids of each prompt.
        end_id: token that ends an answer.
        max_positions: context length of the model.
    """

    prompts: Sequence[Sequence[int]]
    end_id: int
    max_positions: int


def load_questions(
    source: Source, fields: Mapping[str, str | None] | None = None, reserved: Sequence[str] = ()
) -> list[Question]:
    """Reads and checks all questions of a source.

    Args:
        fields: the source's column for each of instruction and input, where it is not the field's name.
        reserved: columns that a row must not have, since the answer will stand there.

    Raises:
        InputError: anything wrong in it; all problems at once.
    """
    rows, columns = source.rows(), columns_of(fields or {})
    with Problems() as problems:
        records = checked_records(source.name, rows, columns, ("instruction", "input"), problems)
        questions = []
        for index, (row, record) in enumerate(zip(rows, records, strict=True)):
            if not isinstance(row.value, dict):  # reported already
                continue
            where = place_of(source.name, index, row.line)
            turn = record.turns[0]
            if turn.instruction == row.value.get(columns["instruction"]) and not turn.instruction.strip():
                problems.add("the instruction is empty", where=where, fix="write an instruction, or remove the record")
            for name in [name for name in reserved if name in row.value]:
                what = f"column name {name!r} is reserved for the output"
                problems.add(what, where=where, fix=f"rename the column {name!r}")
            questions.append(Question(turn.instruction, turn.input, where, row.value))
    return questions
