"""Options that stand for keys of ``train.py`` in commands that read records themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from galpaca.data.records import FIELDS
from galpaca.errors import InputError, InputErrors

_OWN_OPTIONS = (
    (re.compile(r"data\.fields\.(\w+)="), r"--field \1="),
    (re.compile(r"model\.tokenizer=(\w+).*"), r"--tokenizer \1"),
    (re.compile(r"data\.template\b"), "--template"),
    (re.compile(r"data\.max_length\b"), "--max-length"),
)


@contextmanager
def told_in_own_options() -> Iterator[None]:
    """What the context raises names this command's options for the keys of ``train.py``."""
    try:
        yield
    except InputErrors as error:
        raise InputErrors([_translated(problem) for problem in error.problems], error.count) from None
    except InputError as error:
        raise _translated(error) from None


def _translated(problem: InputError) -> InputError:
    where, fix = problem.where, problem.fix
    for key, option in _OWN_OPTIONS:
        where, fix = key.sub(option, where), key.sub(option, fix)
    return InputError(problem.what, where=where, why=problem.why, fix=fix)


def columns_of_options(texts: Sequence[str], fields: Sequence[str] = FIELDS) -> dict[str, str | None]:
    """The columns that options ``FIELD=COLUMN`` name.

    Raises:
        InputError: one that does not look like this.
    """
    columns: dict[str, str | None] = {}
    for text in texts:
        field, _, column = text.partition("=")
        if field not in fields or not column:
            raise InputError(f"{text!r} is no FIELD=COLUMN", where="--field", fix=f"FIELD is {' or '.join(fields)}")
        columns[field] = column
    return columns
