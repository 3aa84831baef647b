"""Rows of a source become records, whatever form they have, and all that is wrong is reported at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from galpaca.data.findings import Findings
from galpaca.data.forms.fields import FIELDS, NO_INPUT, FieldColumns, hint_of_input
from galpaca.data.forms.form import Form, RowView, kind_of
from galpaca.data.forms.messages import Messages
from galpaca.data.grouping import group_hashes
from galpaca.data.hashes import content_hash
from galpaca.data.records import Record, RecordSet
from galpaca.data.sources.table import Source, Table
from galpaca.errors import Problems

# Forms that rows have where the columns of Alpaca's are not there, by their columns.
FORMS: Sequence[tuple[str, ...]] = (("messages",), ("conversations",), ("prompt", "completion"))

_FORM = 'write each record as {"instruction": ..., "input": ..., "output": ...}; a list of records goes into a .json'


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        fields: the source's column for each of instruction, input and output, where it is not the field's name; as
            that of the input, ``none`` says that there is none.
        on_missing_input: ``empty`` or ``error`` for rows whose input is null or absent.
        tags: kind of sequence by column: all of the column's text is one.
        kept: further columns whose values are wanted.
        split_by: column whose value keeps records on one side of a split.
        split_kind: how its values do, as for ``group_hashes``.
        is_questions: rows need no output.
    """

    fields: Mapping[str, str | None] = field(default_factory=dict)
    on_missing_input: str = "empty"
    tags: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()
    split_by: str | None = None
    split_kind: str = "value"
    is_questions: bool = False

    @property
    def further(self) -> list[str]:
        """Columns that no form reads, and whose values are wanted nevertheless."""
        return [*self.kept, *([self.split_by] if self.split_by else [])]

    @property
    def candidates(self) -> frozenset[str]:
        """All columns that may be read."""
        return frozenset([*columns_of(self.fields).values(), *(name for form in FORMS for name in form), *self.further])

    def form_of(self, columns: Mapping[str, int]) -> Form:
        """The form of rows that have these columns. Columns that are named, or Alpaca's own, come first."""
        of = columns_of(self.fields)
        needed = [name for name in ("instruction", "output") if name != "output" or not self.is_questions]
        is_named = any(self.fields.get(name) not in (None, NO_INPUT) for name in FIELDS)
        if not is_named and not all(of[name] in columns for name in needed):
            for names in FORMS:
                if all(name in columns for name in names):
                    return Messages(names, self.is_questions, self.tags)
        required = list(needed)
        if of["input"] == NO_INPUT:
            del of["input"]
        elif self.fields.get("input"):
            required.insert(1, "input")
        elif of["input"] not in columns:
            if self.on_missing_input == "error":
                required.insert(1, "input")
            else:
                del of["input"]
        if self.is_questions:
            of.pop("output", None)
        return FieldColumns(of, required, self.on_missing_input, self.tags)


def columns_of(fields: Mapping[str, str | None]) -> dict[str, str]:
    """The source's column for each field; by default its own name."""
    return {name: fields.get(name) or name for name in FIELDS}


def load_records(source: Source, reading: Reading | None = None) -> RecordSet:
    """Reads and checks all records of a source.

    Raises:
        InputError: anything wrong in it; all problems at once.
    """
    reading = reading or Reading()
    return records_of(source.table(reading.candidates), source.name, reading)


def records_of(table: Table, source: str, reading: Reading) -> RecordSet:
    """The records of rows that were read already.

    Raises:
        InputError: anything wrong in them; all problems at once.
    """
    with Problems() as problems:
        records, form, found = _checked(table, source, reading, problems)
        if reading.split_by and reading.split_by not in table.columns:
            why = f"the columns are {', '.join(map(repr, table.columns))}"
            fix = "data.split_by=COLUMN, or null to split by content"
            problems.add(f"no record has the column {reading.split_by!r}", where=source, why=why, fix=fix)
    used = form.columns | set(reading.further)
    of = form.of if isinstance(form, FieldColumns) else {}
    hint = hint_of_input(of, table.columns) if of and not reading.fields.get("input") else None
    return RecordSet(
        source=source,
        records=records,
        places=table.places,
        ignored_columns={str(name): count for name, count in table.columns.items() if name not in used},
        findings=found,
        hints=(hint,) if hint else (),
        columns={name: [_cell(value, name) for value in table.values] for name in reading.kept},
        groups=_groups(table, records, reading),
    )


def _groups(table: Table, records: Sequence[Record], reading: Reading) -> list[int] | None:
    if not reading.split_by:
        return None
    values = [_cell(value, reading.split_by) for value in table.values]
    return group_hashes(values, reading.split_kind, [content_hash(record) for record in records])


def _checked(table: Table, source: str, reading: Reading, problems: Problems) -> tuple[list[Record], Form, Findings]:
    found = Findings()
    if table.first_repeated is not None:
        found.counts["repeated_keys"] = table.repeated_keys
        found.first["repeated_keys"] = table.first_repeated
    form = reading.form_of(table.columns).checked(table.columns, source, problems)
    for column in (name for name in reading.tags if name not in form.columns):
        read = f"one of {', '.join(sorted(form.columns))}"
        fix = f"data.fields.input={column} reads it as the input; or tag {read}" if column in table.columns else read
        problems.add("no field is read from this column", where=f"data.tags.{column}", fix=fix)
    records = []
    for index, value in enumerate(table.values):
        if not isinstance(value, dict):
            problems.add(f"expected an object, got {kind_of(value)}", where=table.where(index), fix=_FORM)
            continue
        record = form.record(RowView(value, index, table, found, problems))
        if record is None:
            continue
        is_read = not isinstance(form, FieldColumns) or "instruction" in form.of
        if reading.is_questions and is_read and not record.turns[-1].instruction.strip():
            fix = "write an instruction, or remove the record"
            problems.add("the instruction is empty", where=table.where(index), fix=fix)
        records.append(record)
    return records, form, found


def _cell(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
