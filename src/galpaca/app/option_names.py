"""Options of commands that stand for configuration keys of ``train.py``."""

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
def with_option_names() -> Iterator[None]:
    """Errors raised in the context name this command's options instead of configuration keys."""
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


def parse_field_options(texts: Sequence[str], fields: Sequence[str] = FIELDS) -> dict[str, str | None]:
    """Parses ``FIELD=COLUMN`` options.

    Raises:
        InputError: an option of any other form.
    """
    columns: dict[str, str | None] = {}
    for text in texts:
        field, _, column = text.partition("=")
        if field not in fields or not column:
            fix = f"FIELD is {' or '.join(fields)}"
            raise InputError(f"expected FIELD=COLUMN, got {text!r}", where="--field", fix=fix)
        columns[field] = column
    return columns
