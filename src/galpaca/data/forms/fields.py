"""Rows with a column for each field, as Alpaca has them."""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from galpaca.data.forms.form import RowView, is_missing, tagged
from galpaca.data.records import Record
from galpaca.errors import Problems

FIELDS = ("instruction", "input", "output")
# As the column of the input: there is none.
NO_INPUT = "none"

# Other names that people give to these columns.
_SYNONYMS: Mapping[str, Sequence[str]] = {
    "instruction": ("question", "prompt", "query", "problem", "task"),
    "input": ("context", "inputs"),
    "output": ("response", "answer", "completion", "target", "solution", "outputs"),
}


@dataclass(frozen=True)
class FieldColumns:
    """A column for each field.

    Attributes:
        of: the column of each field that is read.
        required: fields that every row must have.
        on_missing_input: ``empty`` or ``error`` for rows whose input is null or absent.
        tags: kind of sequence by column: all of the column's text is one.
    """

    of: Mapping[str, str]
    required: Sequence[str]
    on_missing_input: str = "empty"
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self.of.values())

    def checked(self, columns: Mapping[str, int], source: str, problems: Problems) -> "FieldColumns":
        missing = [field for field in self.required if columns and not columns.get(self.of[field])]
        for field in missing:
            problems.add(
                f"no record has the field {self.of[field]!r}",
                where=source,
                why=f"the columns are {', '.join(map(repr, columns)) or 'none'}",
                fix=self._suggestion(field, columns),
            )
        return replace(self, of={field: column for field, column in self.of.items() if field not in missing})

    def record(self, row: RowView) -> Record | None:
        texts = dict.fromkeys(FIELDS, "")
        is_whole = True
        for field, column in self.of.items():
            if field == "input" and is_missing(row.value.get(column)):
                row.note("missing_inputs")
                if self.on_missing_input == "error":
                    row.refuse(f"the field {column!r} is null or missing", _MISSING_INPUT_FIX)
                continue
            if column not in row.value:
                row.refuse(f"the field {column!r} is missing", self._fix_of_missing(column, row.columns))
                is_whole = False
                continue
            text = row.text(row.value[column], f"the field {column!r}", self.columns)
            is_whole &= text is not None
            texts[field] = tagged(text or "", self.tags.get(column))
        return Record.of(**texts) if is_whole else None

    def _suggestion(self, field: str, columns: Mapping[str, int]) -> str:
        """Keys that name a column of the source, for this field and for an input that nobody named."""
        near = suggested_column(field, self.of[field], columns)
        if near is None:
            return f"data.fields.{field}=COLUMN names the column that holds it"
        also = hint_of_input(self.of, columns) if field == "output" else None
        return key_of(field, near) + (f" {also}" if also else "") + " (or rename the column)"

    def _fix_of_missing(self, column: str, columns: Mapping[str, int]) -> str:
        # Other rows have it, so another column for all of them is no way out.
        rare = {name: count for name, count in columns.items() if count <= columns[column]}
        near = _nearest(column, rare)
        return f"add {column!r} to the record" + (f", or rename {near!r} if it has that" if near else "")


_MISSING_INPUT_FIX = "data.on_missing_input=empty takes it for an empty one; or write the input"


def suggested_column(field: str, column: str, columns: Mapping[str, object]) -> str | None:
    """The column of a source that may hold a field under another name."""
    folded = {str(name).strip().casefold(): str(name) for name in columns}
    return next((folded[name] for name in (column.casefold(), *_SYNONYMS[field]) if name in folded), None) or _nearest(
        column, columns
    )


def hint_of_input(of: Mapping[str, str], columns: Mapping[str, object]) -> str | None:
    """The key that would read an input from a column that nothing reads; None where no column looks like one."""
    if "input" in of and of["input"] in columns:
        return None
    free = {name: None for name in columns if name not in of.values()}
    found = suggested_column("input", "input", free)
    return key_of("input", found) if found else None


def key_of(field: str, column: str) -> str:
    """What to type so that a field is read from a column, quoted for a shell and for the configuration."""
    if re.fullmatch(r"[\w./:+%@-]+", column):
        return f"data.fields.{field}={column}"
    escaped = column.replace('"', '\\"')
    return shlex.quote(f'data.fields.{field}="{escaped}"')


def _nearest(column: str, names: Mapping[str, object]) -> str | None:
    others = [str(name) for name in names if name not in FIELDS]
    return next(iter(difflib.get_close_matches(column, others, n=1, cutoff=0.7)), None)
