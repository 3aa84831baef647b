"""Records in JSON: a list of objects (``.json``), or an object a line (``.jsonl``, ``.ndjson``)."""

import ast
import codecs
import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from galpaca.data.sources.table import RepeatedKeys
from galpaca.data.sources.text import beside, decode, refuse_bytes
from galpaca.errors import Problems
from galpaca.shell import module_line, python_line

# Where the next element may begin after one that is not JSON.
_NEXT_ELEMENT = re.compile(r"\}\s*,\s*(?=\{)")

_TO_LIST = (
    "import json, sys; table = json.load(open(sys.argv[1], encoding='utf-8-sig')); "
    "json.dump([dict(zip(table, row)) for row in zip(*(one.values() for one in table.values()))], "
    "open(sys.argv[2], 'w'))"
)
_TO_VALUES = (
    "import json, sys; table = json.load(open(sys.argv[1], encoding='utf-8-sig')); "
    "json.dump(list(table.values()), open(sys.argv[2], 'w'))"
)
_TAKE = (
    "import json, sys; "
    "json.dump(json.load(open(sys.argv[1], encoding='utf-8-sig'))[sys.argv[3]], open(sys.argv[2], 'w'))"
)
# Takes line breaks and tabs as they stand in a text.
_LENIENT = (
    "import json, sys; "
    "json.dump(json.load(open(sys.argv[1], encoding='utf-8-sig'), strict=False), open(sys.argv[2], 'w'))"
)
_LITERALS = (
    "import ast, json, sys; "
    "lines = open(sys.argv[1], encoding='utf-8-sig').read().split('\\n'); "
    "print(*(json.dumps(ast.literal_eval(line)) for line in lines if line.strip()), sep='\\n', "
    "file=open(sys.argv[2], 'w'))"
)

Found = Iterator[tuple[int | None, Any]]


def read_list(content: bytes, path: Path, problems: Problems) -> Found:
    """A list of objects, decoded element by element so that each row knows its line. After an element that is not JSON,
    reading goes on where the next one seems to begin, so that all mistakes are found at once.
    """
    text = decode(content, path)
    lines = _LineCounter(text)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        _refuse_what_is_no_list(text, path, problems)
        return
    at = _skip(text, at + 1)
    more, is_broken = text[at : at + 1] != "]", False
    while more:
        try:
            value, end = _DECODER.raw_decode(text, at)
            yield lines.at(at), value
            at = _skip(text, end)
            more = text[at : at + 1] == ","
            if more:
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        except json.JSONDecodeError as error:
            _report(error, path, problems)
            following = _NEXT_ELEMENT.search(text, error.pos)
            if following is None:
                return
            at, more, is_broken = following.end(), True, True
        except (RecursionError, ValueError) as error:  # a hundred thousand brackets; a number of thousands of digits
            problems.add(f"invalid record: {error}", where=f"{path}, line {lines.at(at)}", fix="fix the file there")
            return
    at = _skip(text, at + 1)
    if at < len(text) and not is_broken:
        _report(json.JSONDecodeError("Extra data after the list", text, at), path, problems)


def read_lines(content: bytes, path: Path, problems: Problems) -> Found:
    """An object a line. Only a newline ends a line."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = decode(content, path).encode()
    bad_offsets: list[int] = []
    offset = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    for number, raw in enumerate(io.BytesIO(content[offset:]), start=1):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            bad_offsets += _bad_offsets(raw, error, offset)
        else:
            yield from _line(line, number, path, problems)
        offset += len(raw)
        if problems.count and number == 1 and _is_list(content):
            break
    refuse_bytes(content, bad_offsets, path)


def _bad_offsets(raw: bytes, error: UnicodeDecodeError, offset: int) -> Iterator[int]:
    """All bytes of a line that are not UTF-8, by their offset in the file."""
    at = 0
    while True:
        yield offset + at + error.start
        at += error.end
        try:
            raw[at:].decode()
            return
        except UnicodeDecodeError as following:
            error = following


def _line(line: str, number: int, path: Path, problems: Problems) -> Found:
    if not line.strip():
        return
    where = f"{path}, line {number}"
    try:
        value = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        what = f"invalid JSON: {error.msg} (column {error.colno})"
        problems.add(what, where=where, fix=_fix_of_line(line, error, path))
    except (RecursionError, ValueError) as error:
        problems.add(f"invalid record: {error}", where=where, fix="fix the line")
    else:
        if isinstance(value, list):
            problems.add("the line is a list, not an object", where=where, fix=_rename_to_list(path))
        yield number, value


def _fix_of_line(line: str, error: json.JSONDecodeError, path: Path) -> str:
    source = shlex.quote(str(path))
    if line.lstrip().startswith("["):
        return _rename_to_list(path)
    if _is_python(line):
        target = beside(path, "json")
        command = f"`{python_line(_LITERALS, path, target)}`"
        return f"the quotes are Python's: {command}; then use {target}"
    if line.startswith("\ufeff"):
        target = beside(path, "joined")
        command = rf"`sed 's/\xef\xbb\xbf//g' {source} > {shlex.quote(str(target))}`"
        return f"a byte order mark stands in the midst of the file: {command}; then use {target}"
    return _fix_of(error) or "put exactly one JSON object on each line"


def _rename_to_list(path: Path) -> str:
    target = path.with_suffix(".json")
    return f"the file is one list: `mv {shlex.quote(str(path))} {shlex.quote(str(target))}`; then use {target}"


def _report(error: json.JSONDecodeError, path: Path, problems: Problems) -> None:
    target = beside(path, "joined")
    if error.msg.startswith("Invalid control character") and _is_json(error.doc):
        fix = f"`{python_line(_LENIENT, path, target)}`; then use {target}"
    else:
        fix = _fix_of(error) or f"fix the file there; `{module_line('json.tool', path)}` checks it"
    cut_off = error.msg.startswith("Unterminated string") or not error.doc[error.pos :].strip()
    ends = "; the file ends inside the list" if cut_off else ""
    problems.add(
        f"invalid JSON: {error.msg} (column {error.colno}){ends}",
        where=f"{path}, line {error.lineno}",
        fix=fix,
    )


def _fix_of(error: json.JSONDecodeError) -> str:
    """What the commonest mistakes need; empty for others."""
    rest, before = error.doc[error.pos :], error.doc[: error.pos].rstrip()
    if error.msg.startswith("Invalid \\escape"):
        return r"double each backslash: \\alpha for \alpha"
    if error.msg.startswith("Invalid control character"):
        return r"close the text's quotes there, or write \n for a line break inside of it and \t for a tab"
    if (before.endswith(",") and rest[:1] in ("]", "}")) or error.msg.startswith("Illegal trailing comma"):
        return "remove the comma before the closing bracket"
    if rest.startswith(("//", "/*", "#")):
        return "remove the comment: JSON has none"
    if rest.startswith("'"):
        return 'write double quotes, and \\" for those inside of a text'
    return ""


def _refuse_what_is_no_list(text: str, path: Path, problems: Problems) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    problems.add("the file is not a list of records", where=f"{path}, line 1", fix=_fix_of_no_list(found, text, path))


def _fix_of_no_list(found: Any, text: str, path: Path) -> str:
    target = beside(path, "list", ".json")
    lists = [name for name, value in found.items() if _has_records(value)] if isinstance(found, dict) else []
    if lists:
        return f"`{python_line(_TAKE, path, target, lists[0])}`; then use {target}"
    if isinstance(found, dict) and found and all(isinstance(one, dict) for one in found.values()):
        if _is_of_columns(found):
            return f"it holds columns: `{python_line(_TO_LIST, path, target)}`; then use {target}"
        return f"it holds records by name: `{python_line(_TO_VALUES, path, target)}`; then use {target}"
    if found is None and text.lstrip().startswith("{") and _is_object(text.lstrip().partition("\n")[0]):
        target = path.with_suffix(".jsonl")
        return f"it is one object a line: `{shlex.join(['mv', str(path), str(target)])}`; then use {target}"
    return "put the records into a list: [{...}, {...}]; one object a line needs the suffix .jsonl"


def _is_of_columns(found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an object of objects has columns of many rows, as pandas writes tables, not records of few fields."""
    rows = {name for one in found.values() for name in one}
    return all(map(str.isdecimal, rows)) or len(found) < len(rows)


def _has_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_json(text: str) -> bool:
    """Whether line breaks and tabs inside of texts are all that is wrong."""
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _is_python(line: str) -> bool:
    """Whether a line is an object as Python prints it."""
    try:
        return isinstance(ast.literal_eval(line.strip()), dict)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _is_list(content: bytes) -> bool:
    return content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    inner = (one for value in made.values() for one in (value if isinstance(value, list) else (value,)))
    is_whole = len(made) == len(pairs) and not any(isinstance(one, RepeatedKeys) for one in inner)
    return made if is_whole else RepeatedKeys(made)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


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
