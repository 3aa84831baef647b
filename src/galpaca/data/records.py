"""Records: turns of an instruction, an input that may be empty, and an output. Alpaca's have one."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from galpaca.data.sources import Row, Source
from galpaca.errors import Problems

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}

FIELDS = ("instruction", "input", "output")

_FORM = 'write each record as {"instruction": ..., "input": ..., "output": ...}; a list of records goes into a .json'


class Turn(NamedTuple):
    """A question and its answer."""

    instruction: str
    input: str
    output: str


class Record(NamedTuple):
    """A conversation.

    Attributes:
        turns: at least one. Of a question, the output of the last is empty.
        system: what holds for the whole conversation, ahead of its turns; empty where there is nothing.
    """

    turns: tuple[Turn, ...]
    system: str = ""

    @classmethod
    def of(cls, instruction: str, input: str = "", output: str = "") -> "Record":
        """A record of one turn; without an output, a question."""
        return cls((Turn(instruction, input, output),))

    @property
    def num_answer_bytes(self) -> int:
        """UTF-8 bytes of all its answers."""
        return sum(len(turn.output.encode()) for turn in self.turns)

    def texts(self) -> Iterator[str]:
        """All its texts, in order."""
        if self.system:
            yield self.system
        for turn in self.turns:
            yield from turn


@dataclass(frozen=True)
class RecordSet:
    """Checked records and where they came from.

    Attributes:
        source: name of the file or data set.
        lines: line of the file on which each record begins, or None.
        ignored_columns: columns that no field uses, with the number of records that have them.
    """

    source: str
    records: list[Record]
    lines: list[int | None]
    ignored_columns: dict[str, int]

    def __len__(self) -> int:
        return len(self.records)

    def where(self, index: int) -> str:
        return place_of(self.source, index, self.lines[index])


def columns_of(fields: Mapping[str, str | None]) -> dict[str, str]:
    """The source's column for each field; by default its own name."""
    return {field: fields.get(field) or field for field in FIELDS}


def load_records(source: Source, fields: Mapping[str, str | None] | None = None) -> RecordSet:
    """Reads and checks all records of a source.

    Args:
        fields: the source's column for each of instruction, input and output, where it is not the field's name.

    Raises:
        InputError: anything wrong in it; all problems at once.
    """
    columns = columns_of(fields or {})
    rows = source.rows()
    with Problems() as problems:
        records = checked_records(source.name, rows, columns, FIELDS, problems)
    present = _columns_of(rows)
    used = set(columns.values())
    return RecordSet(
        source=source.name,
        records=records,
        lines=[row.line for row in rows],
        ignored_columns={str(name): count for name, count in present.items() if name not in used},
    )


def checked_records(
    source: str, rows: Sequence[Row], columns: dict[str, str], wanted: Sequence[str], problems: Problems
) -> list[Record]:
    """Makes a record of every row, and adds what is wrong to the problems.

    Args:
        wanted: fields that a row must have; an input is not required where no row has one.
    """
    present = _columns_of(rows)
    required = [field for field in wanted if field != "input" or _has_input(columns, present)]
    missing_everywhere = [field for field in required if present and not present[columns[field]]]
    for field in missing_everywhere:
        problems.add(
            f"no record has the field {columns[field]!r}",
            where=source,
            why=f"the columns are {', '.join(map(repr, present)) or 'none'}",
            fix=_suggest(field, columns[field], present),
        )
    checked = [field for field in required if field not in missing_everywhere]
    places = (place_of(source, index, row.line) for index, row in enumerate(rows))
    return [_record(where, row, columns, checked, problems) for where, row in zip(places, rows, strict=True)]


def _columns_of(rows: Sequence[Row]) -> Counter[str]:
    """The columns, with the number of rows that have them."""
    present: Counter[str] = Counter()
    for row in rows:
        if isinstance(row.value, dict):
            present.update(row.value.keys())
    return present


def _has_input(columns: dict[str, str], present: Counter[str]) -> bool:
    """Data without any input (Evol-Instruct's kind) is fine; a misspelt or renamed column is not."""
    column = columns["input"]
    misspelt = difflib.get_close_matches(column, [name for name in present if name not in columns.values()])
    return bool(present[column] or column != "input" or misspelt)


def _record(where: str, row: Row, columns: dict[str, str], checked: list[str], problems: Problems) -> Record:
    if not isinstance(row.value, dict):
        problems.add(f"expected an object, got {_kind(row.value)}", where=where, fix=_FORM)
        return Record.of("")
    texts = dict.fromkeys(FIELDS, "")
    for field in checked:
        column = columns[field]
        if column not in row.value:
            # Other records have it, so another column for all of them is no way out.
            near = _nearest(column, row.value)
            fix = 'add "input": "" where a record has none' if field == "input" else f"add {column!r} to the record"
            fix = f"rename {near!r} to {column!r} in that record" if near else fix
            problems.add(f"the field {column!r} is missing", where=where, fix=fix)
            continue
        value = row.value[column]
        if not isinstance(value, str):
            problems.add(
                f"the field {column!r} is {_kind(value)}, not a string",
                where=where,
                fix='write it as text in quotes ("" where there is none)',
            )
        elif not _is_text(value):
            problems.add(f"the field {column!r} has an unpaired surrogate", where=where, fix="fix the escape \\uD...")
        else:
            texts[field] = value
    return Record.of(**texts)


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _suggest(field: str, column: str, names: Mapping[str, object]) -> str:
    near = _nearest(column, names)
    if near:
        return f"data.fields.{field}={near} (or rename the column)"
    return f"data.fields.{field}=COLUMN names the column that holds it"


def _nearest(column: str, names: Mapping[str, object]) -> str | None:
    others = [str(name) for name in names if name not in FIELDS]
    return next(iter(difflib.get_close_matches(column, others, n=1, cutoff=0.7)), None)


def place_of(source: str, index: int, line: int | None) -> str:
    """Name of a row in error messages."""
    return f"{source}, record {index + 1}" + (f" (line {line})" if line is not None else "")
