"""What a form of rows has to offer, and how it says that a value is no text."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from galpaca.data.findings import Findings
from galpaca.data.records import Record
from galpaca.data.sources.table import Table
from galpaca.errors import Problems
from galpaca.shell import python_line

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}

# Changes a column's type where a file has types.
_CAST = (
    "import sys, pyarrow as a, pyarrow.parquet as p; source, target, *names = sys.argv[1:]; t = p.read_table(source); "
    "p.write_table(a.table({c: t[c].cast('string') if c in names else t[c] for c in t.column_names}), target)"
)


class Form(Protocol):
    """A form of rows, made for the columns of one source."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns that it reads."""

    def checked(self, columns: Mapping[str, int], source: str, problems: Problems) -> "Form":
        """Adds what is wrong with the columns of all rows; returns the form of what can be read nevertheless."""

    def record(self, row: "RowView") -> Record | None:
        """The record of a row; None where it has problems, which are added to the row's."""


class RowView:
    """One row, with what is needed to complain about it.

    Attributes:
        value: its columns.
        index: its number, from 0.
        columns: all columns of the source, with the number of rows that have them.
        findings: what is found is noted here.
    """

    def __init__(self, value: dict[str, Any], index: int, table: Table, findings: Findings, problems: Problems) -> None:
        self.value, self.index, self.columns, self.findings = value, index, table.columns, findings
        self._where, self._problems = table.where, problems

    def refuse(self, what: str, fix: str, why: str = "") -> None:
        self._problems.add(what, where=self._where(self.index), why=why, fix=fix)

    def note(self, name: str) -> None:
        self.findings.note(name, self.index)

    def text(self, value: object, name: str, columns: Iterable[str] = ()) -> str | None:
        """A value that has to be a text; None, and a problem, where it is none.

        Args:
            name: what it is, in messages.
            columns: all that have to be text, where a command can change the types of columns.
        """
        if not isinstance(value, str):
            self.refuse(f"{name} is {kind_of(value)}, not a string", self._fix_of_type(value, columns))
            return None
        if not _is_text(value):
            self.refuse(f"{name} has an unpaired surrogate", "fix the escape \\uD...")
            return None
        return value

    def _fix_of_type(self, value: object, columns: Iterable[str]) -> str:
        path = self._where(self.index).partition(", record ")[0]
        if columns and path.endswith(".parquet") and not isinstance(value, list | dict | None):
            target = f"{path.removesuffix('.parquet')}-text.parquet"
            return f"`{python_line(_CAST, path, target, *sorted(columns))}`; then use {target}"
        if not re.search(r"\.(json|jsonl|ndjson)(\.(gz|zst|bz2|xz))?$", path.lower()):
            missing = "fill or leave out these rows" if value is None else "make the column one of texts"
            return f"{missing} where the data are written"
        return 'write it as text in quotes ("" where there is none)'


def tagged(text: str, kind: str | None) -> str:
    """A text between the tags of a kind of sequence, unless it is empty or has tags."""
    return f"[START_{kind}]{text}[END_{kind}]" if kind and text and "[START_" not in text else text


def kind_of(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def is_missing(value: object) -> bool:
    """Whether a value stands for none: null, or the number that tables write for it."""
    return value is None or (isinstance(value, float) and value != value)


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
