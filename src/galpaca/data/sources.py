"""Rows from files (JSON, JSON Lines, CSV, TSV, Parquet) and from Hugging Face Hub data sets."""

import codecs
import csv
import difflib
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from galpaca.errors import SHOWN_PROBLEMS, InputError, Problems, first_line

_KINDS_FIX = "use .json (a list of objects), .jsonl (one object a line), .csv, .tsv or .parquet"


class Row(NamedTuple):
    """One record as it stands in its source.

    Attributes:
        line: the line of the file on which it begins, or None where a source has no lines.
        value: usually a dict of columns.
    """

    line: int | None
    value: Any


class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """The file's path, or the name of the data set."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes, or of the data set's rows."""

    def rows(self) -> list[Row]:
        """All rows in order.

        Raises:
            InputError: bad UTF-8, invalid syntax, no rows; all problems at once.
        """


class FileSource:
    """A file of records, its kind known by its suffix.

    Raises:
        InputError: no such file, unknown kind, empty, not readable.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        read = _READERS.get(path.suffix.lower())
        if path.is_dir():
            raise InputError("expected a file, found a folder", where=path, fix="name a file of records in it")
        if not path.exists():
            raise InputError("no such file", where=path, why=f"looked in {path.parent.resolve()}", fix=_near(path))
        if read is None:
            raise InputError(f"unsupported file type: {path.suffix or 'no suffix'}", where=path, fix=_KINDS_FIX)
        try:
            self._content = path.read_bytes()
        except OSError as error:
            what = f"cannot read the file: {error.strerror}"
            raise InputError(what, where=path, fix="check its permissions") from None
        if not self._content.strip():
            raise InputError("the file is empty", where=path, fix="use a file with at least one record")
        self._read = read
        self.fingerprint = hashlib.sha256(self._content).hexdigest()

    def rows(self) -> list[Row]:
        with Problems() as problems:
            rows = list(self._read(self._content, self.path, problems))
        if not rows:
            raise InputError("the file has no records", where=self.path, fix="use a file with at least one record")
        return rows


class HubSource:
    """A data set of the Hugging Face Hub, from its cache where there is no network.

    Raises:
        InputError: the data set, its split or its revision cannot be had.
    """

    def __init__(self, name: str, split: str = "train", revision: str | None = None) -> None:
        import datasets  # a second to import, and only this door needs it

        self.name = name
        try:
            table = datasets.load_dataset(name, split=split, revision=revision)
        except Exception as error:  # the library raises a dozen unrelated kinds
            raise InputError(
                f"cannot load the data set: {type(error).__name__}: {first_line(error)}",
                where=f"{name} (split {split})",
                why="it is not prepared, not in the local cache, and not available from the Hub",
                fix="check the name, split and network; run galpaca prepare +experiment=NAME with network access; "
                "or download it and use data=local data.path=FILE",
            ) from None
        self._rows = [Row(None, row) for row in table]
        self.fingerprint = _digest_of(self.lines())

    def rows(self) -> list[Row]:
        if not self._rows:
            fix = "choose another split with data.hub_split"
            raise InputError("the data set has no records", where=self.name, fix=fix)
        return self._rows

    def lines(self) -> Iterator[str]:
        """Each row as one line of JSON."""
        return (json.dumps(row.value, sort_keys=True, default=str) for row in self._rows)


class SavedSource:
    """A data set of the Hub whose ``lines`` were saved in a file; the fingerprint is the data set's.

    Args:
        path: path of the file.
        name: name of the data set.
        fingerprint: fingerprint of the data set.
        fix: command that saves it again.

    Raises:
        InputError: the file is not there, or not as it was saved.
    """

    def __init__(self, path: Path, name: str, fingerprint: str, fix: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        try:
            self._lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the saved data set: {error}", where=path, fix=fix) from None
        if _digest_of(self._lines) != fingerprint:
            raise InputError("the saved data set is damaged: checksum mismatch", where=path, fix=fix)

    def rows(self) -> list[Row]:
        return [Row(None, json.loads(line)) for line in self._lines]


def _digest_of(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def _json(content: bytes, path: Path, problems: Problems) -> Iterator[Row]:
    """A list of objects, decoded element by element so that each row knows its line."""
    text = _decode(content, path)
    lines = _LineCounter(text)
    decoder = json.JSONDecoder()
    try:
        at = _skip(text, 0)
        if text[at : at + 1] != "[":
            _refuse_what_is_no_list(text, path, problems)
            return
        at = _skip(text, at + 1)
        more = text[at : at + 1] != "]"
        while more:
            value, end = decoder.raw_decode(text, at)
            yield Row(lines.at(at), value)
            at = _skip(text, end)
            more = text[at : at + 1] == ","
            if more:
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        at = _skip(text, at + 1)
        if at < len(text):
            raise json.JSONDecodeError("Extra data after the list", text, at)
    except json.JSONDecodeError as error:
        cut_off = error.msg.startswith("Unterminated string") or not text[error.pos :].strip()
        ends = "; the file ends inside the list" if cut_off else ""
        problems.add(
            f"invalid JSON: {error.msg} (column {error.colno}){ends}",
            where=f"{path}, line {error.lineno}",
            fix=f"fix the file there; `python -m json.tool {path}` checks it",
        )
    except (RecursionError, ValueError) as error:  # a hundred thousand brackets; a number of thousands of digits
        problems.add(f"invalid record: {error}", where=f"{path}, line {lines.at(at)}", fix="fix the file there")


def _refuse_what_is_no_list(text: str, path: Path, problems: Problems) -> None:
    try:
        json.loads(text)
        fix = "put the records into a list: [{...}, {...}]"
    except json.JSONDecodeError:
        fix = "write a list [{...}, {...}]; one object per line needs the suffix .jsonl"
    problems.add("the file is not a list of records", where=f"{path}, line 1", fix=fix)


def _json_lines(content: bytes, path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in enumerate(_decode(content, path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line))
        except json.JSONDecodeError as error:
            problems.add(
                f"invalid JSON: {error.msg} (column {error.colno})",
                where=f"{path}, line {number}",
                fix="put exactly one JSON object on each line",
            )
        except (RecursionError, ValueError) as error:
            problems.add(f"invalid record: {error}", where=f"{path}, line {number}", fix="fix the line")


def _csv(content: bytes, path: Path, problems: Problems) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # an answer may be longer than the default of 128 KiB
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(_decode(content, path), newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        header = next(reader, [])
        for name in sorted({name for name in header if header.count(name) > 1}):
            what = f"the header has {name!r} more than once"
            problems.add(what, where=f"{path}, line 1", fix="rename one of the columns")
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                problems.add(
                    f"{len(cells)} cells, but the header has {len(header)}",
                    where=f"{path}, line {begins}",
                    fix='put text that holds a comma, a quote or a newline into "quotes", and double quotes inside it',
                )
            elif cells:
                yield Row(begins, dict(zip(header, cells, strict=True)))
            begins = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}, line {begins}"  # where the record begins: an open quote shows only at the end of the file
        problems.add(f"invalid CSV: {error}", where=where, fix="close its quotes, and double those inside of them")


def _parquet(content: bytes, path: Path, problems: Problems) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        problems.add(f"not a readable Parquet file: {error}", where=path, fix="write the file again")
        return
    for value in table.to_pylist():
        yield Row(None, value)


_READERS: dict[str, Callable[[bytes, Path, Problems], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _decode(content: bytes, path: Path) -> str:
    """Decodes UTF-8 (a byte order mark, as spreadsheets write it, is dropped); reports every bad byte."""
    begins = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    bad_offsets: list[int] = []

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        bad_offsets.append(begins + error.start)
        return "", error.end

    codecs.register_error("galpaca.note", note)
    text = content[begins:].decode("utf-8", "galpaca.note")
    with Problems() as problems:
        for offset in bad_offsets[:SHOWN_PROBLEMS]:
            line = content.count(b"\n", 0, offset) + 1
            problems.add(
                f"byte 0x{content[offset]:02x} at byte offset {offset} is not UTF-8",
                where=f"{path}, line {line}",
                fix=f"convert the file, for instance: iconv -f LATIN1 -t UTF-8 {path} > converted{path.suffix}",
            )
        problems.count = len(bad_offsets)
    return text


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


class _LineCounter:
    """Line numbers of increasing offsets, each stretch of the text counted once."""

    def __init__(self, text: str) -> None:
        self._text, self._offset, self._line = text, 0, 1

    def at(self, offset: int) -> int:
        self._line += self._text.count("\n", self._offset, offset)
        self._offset = offset
        return self._line


def _near(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "check the path"
