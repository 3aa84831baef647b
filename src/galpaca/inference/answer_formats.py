"""The form of a finished file of answers, which its name says."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from galpaca.errors import InputError

Line = Mapping[str, Any]


def json_lines(lines: Sequence[Line]) -> str:
    """A line of JSON each; what JSON has no form for stands as text."""
    return "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)


def _json(lines: Sequence[Line]) -> str:
    return json.dumps(lines, ensure_ascii=False, default=str, indent=1) + "\n"


def _table(lines: Sequence[Line], delimiter: str) -> str:
    """A header of all keys in the order of their first line; what is neither text nor a number stands as JSON."""
    text = io.StringIO()
    keys = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(text, keys, delimiter=delimiter, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


_FORMATS: Mapping[str, Callable[[Sequence[Line]], str]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": _json,
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
}


def format_of(path: Path) -> Callable[[Sequence[Line]], str]:
    """What writes lines in the form that a file's name says.

    Raises:
        InputError: it says none that answers are written in.
    """
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(sorted(_FORMATS))
        what = f"answers are not written as {path.suffix}" if path.suffix else "the name does not say the form"
        raise InputError(what, where=path, why=f"they can be {known}", fix=f"--out {path.with_suffix('.jsonl')}")
    return found
