"""Records in CSV and TSV, as people and office programs write them."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from galpaca.data.sources.text import decode
from galpaca.errors import Problems

# What separates cells: a semicolon where a comma is the decimal sign.
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 20
# The first line of a file in which a spreadsheet program says what separates its cells.
_SEPARATOR_LINE = re.compile(r"\ufeff?\"?sep=([,;|\t])\"?\r?\n", re.IGNORECASE)

Found = Iterator[tuple[int | None, Any]]


def read_csv(content: bytes, path: Path, problems: Problems) -> Found:
    """Cells separated by commas, or by what the first rows say; columns without a name and a value are left out."""
    text = decode(content, path)
    if said := _SEPARATOR_LINE.match(text):
        return _rows("\n" + text[said.end() :], said[1], path, problems)  # an empty line in its place
    return _rows(text, _delimiter_of(text), path, problems)


def read_tsv(content: bytes, path: Path, problems: Problems) -> Found:
    return _rows(decode(content, path), "\t", path, problems)


def _delimiter_of(text: str) -> str:
    """The delimiter with which most of the first rows have as many cells as the header; a comma in doubt."""

    file = io.StringIO(text, newline="")

    def fits(delimiter: str) -> tuple[float, int]:
        file.seek(0)
        rows: list[list[str]] = []
        with suppress(csv.Error):  # the rows before a mistake say enough
            rows.extend(islice((row for row in _reader(file, delimiter) if any(row)), _SAMPLE_ROWS))
        header, others = (rows[0], rows[1:]) if rows else ([], [])
        if len(header) < 2:
            return 0.0, 0
        return sum(len(row) == len(header) for row in others) / (len(others) or 1), len(header)

    return max(_DELIMITERS, key=fits)


def _reader(file: io.StringIO, delimiter: str) -> Any:
    csv.field_size_limit(sys.maxsize)  # an answer may be longer than the default of 128 KiB
    return csv.reader(file, delimiter=delimiter, strict=True)


def _rows(text: str, delimiter: str, path: Path, problems: Problems) -> Found:
    reader = _reader(io.StringIO(text, newline=""), delimiter)
    begins = 1
    try:
        first: list[str] = next((cells for cells in reader if any(cells)), [])
        header = _header(first, f"{path}, line {max(reader.line_num, 1)}", problems)
        begins = reader.line_num + 1
        for cells in reader:
            whole = _without_empty_end(cells, len(header))
            if whole and len(whole) != len(header):
                what = f"{len(cells)} cells, but the header has {len(header)}"
                problems.add(what, where=f"{path}, line {begins}", fix=_fix_of_width(whole, header, delimiter))
            elif whole:
                named = zip(header, whole, strict=True)
                yield begins, {name: cell for name, cell in named if name or cell}
            begins = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}, line {begins}"  # where the record begins: an open quote shows only at the end of the file
        problems.add(f"invalid CSV: {error}", where=where, fix="close its quotes, and double those inside of them")


def _fix_of_width(cells: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    name = _NAMES[delimiter]
    if len(cells) < len(header):
        return f"write a {name} for each cell that is empty"
    return f'put text that holds a {name}, a quote or a newline into "quotes", and double quotes inside it'


def _header(cells: Sequence[str], where: str, problems: Problems) -> list[str]:
    """The columns' names; a column without one has none, and its cells stay where they are not empty."""
    names = [name for name in cells if name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        what = f"the header has {name!r} more than once"
        problems.add(what, where=where, fix="rename one of the columns")
    header = list(cells)
    while header and not header[-1]:
        header.pop()
    return header


def _without_empty_end(cells: list[str], width: int) -> list[str]:
    """The cells without empty ones beyond the header's, which office programs write."""
    while len(cells) > width and not cells[-1]:
        cells = cells[:-1]
    return cells


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
