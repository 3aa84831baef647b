"""Rows of a source, with the place of each."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol

_NO_LINE = -1


class Places:
    """Where each row stands: in which file, as which record of it, in which line. Compact: a million take 8 MB."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._firsts: list[int] = []
        self._lines = array("q")

    @classmethod
    def of(cls, name: str, lines: Iterable[int | None]) -> "Places":
        """The places of one file's rows."""
        places = cls()
        places.begin(name)
        for line in lines:
            places.add(line)
        return places

    def begin(self, name: str) -> None:
        """The rows of another file follow."""
        self._names.append(name)
        self._firsts.append(len(self._lines))

    def add(self, line: int | None) -> None:
        self._lines.append(_NO_LINE if line is None else line)

    def where(self, index: int) -> str:
        """Name of a row in messages, such as ``a.json, record 3 (line 4)``."""
        return f"{self._names[self._file_of(index)]}, {self._within(index)}"

    def short(self, index: int) -> str:
        """The same without the file's name, which is not part of what is encoded."""
        file = f"file {self._file_of(index) + 1}, " if len(self._names) > 1 else ""
        return file + self._within(index)

    def _file_of(self, index: int) -> int:
        return bisect_right(self._firsts, index) - 1

    def line(self, index: int) -> int | None:
        """The line on which a row begins, from 1; None where a file has no lines."""
        return None if self._lines[index] == _NO_LINE else self._lines[index]

    def _within(self, index: int) -> str:
        line = self.line(index)
        number = index - self._firsts[self._file_of(index)] + 1
        return f"record {number}" + ("" if line is None else f" (line {line})")


@dataclass
class Table:
    """The rows of a source.

    Attributes:
        values: what each row holds, usually a dict of columns; of these, only the columns that were requested.
        places: where each row stands.
        columns: all columns, with the number of rows that have them.
        repeated_keys: rows in which a key stood more than once, and where the first one is: the last value counts.
    """

    values: list[Any] = field(default_factory=list)
    places: Places = field(default_factory=Places)
    columns: Counter[str] = field(default_factory=Counter)
    repeated_keys: int = 0
    first_repeated: int | None = None

    def add(self, line: int | None, value: Any, wanted: AbstractSet[str] | None) -> None:
        """Adds a row, and of its columns those that are wanted; None takes all."""
        if isinstance(value, dict):
            self.columns.update(value.keys())
            if isinstance(value, RepeatedKeys):
                self.repeated_keys += 1
                self.first_repeated = len(self.values) if self.first_repeated is None else self.first_repeated
            if wanted is not None and not value.keys() <= wanted:
                value = {name: one for name, one in value.items() if name in wanted}
        self.places.add(line)
        self.values.append(value)

    def where(self, index: int) -> str:
        return self.places.where(index)


class RepeatedKeys(dict[str, Any]):
    """An object in which a key stood more than once."""


class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """The file's path, or the name of the data set."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes, or of the data set's rows: never of a name."""

    @property
    def kind(self) -> str:
        """How the bytes are read, such as ``.json``: the same bytes may be other rows, or none, as another kind."""

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        """All rows in order.

        Args:
            wanted: columns to keep, so that others take no memory; None keeps all.

        Raises:
            InputError: bad UTF-8, invalid syntax, no rows; all problems at once.
        """
