"""Options of commands that stand for configuration keys of ``train.py``."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from galpaca.data.forms.fields import FIELDS
from galpaca.data.reading import Reading
from galpaca.data.sequences import KINDS
from galpaca.errors import InputError, Problems, restated

_OWN_OPTIONS = (
    (re.compile(r"'data\.fields\.(\w+)=\"(.*?)\"'"), r"--field '\1=\2'"),
    (re.compile(r"data\.fields\.(\w+)="), r"--field \1="),
    (re.compile(r"data\.tags\.(\S+?)="), r"--tag \1="),
    (re.compile(r"data\.tags\.(\S+)"), r"--tag \1"),
    (re.compile(r"data\.on_missing_input="), "--on-missing-input "),
    (re.compile(r"data\.sub_superscripts="), "--sub-superscripts "),
    (re.compile(r"model\.tokenizer=(\w+).*"), r"--tokenizer \1"),
    (re.compile(r"data\.template_date="), "--template-date "),
    (re.compile(r"data\.template_date\b"), "--template-date"),
    (re.compile(r"data\.template\b"), "--template"),
    (re.compile(r"data\.hub_split=\S+, or "), ""),
    (re.compile(r"(?<!when training, )data\.(on_\w+)="), r"when training, data.\1="),
    (re.compile(r"data\.max_length\b"), "--max-length"),
)


@dataclass(frozen=True)
class ReadingOptions:
    """How a command reads a file of records, as it was typed.

    Attributes:
        fields: ``FIELD=COLUMN`` for columns with other names.
        tags: ``COLUMN=KIND`` for columns that hold sequences.
        on_missing_input: ``empty`` or ``error``.
    """

    fields: Sequence[str] = ()
    tags: Sequence[str] = ()
    on_missing_input: str = "empty"

    def reading(self, fields: Sequence[str] = FIELDS) -> Reading:
        """What was typed, for a command that reads these fields.

        Raises:
            InputError: an option of any other form; all at once.
        """
        with Problems() as problems:
            kinds = f"KIND is {' or '.join(KINDS)}"
            columns = _pairs(problems, "--field", "FIELD=COLUMN", self.fields)
            tags = _pairs(problems, "--tag", "COLUMN=KIND", self.tags)
            for field in [field for field in columns if field not in fields]:
                what = f"expected FIELD=COLUMN, got '{field}={columns[field]}'"
                problems.add(what, where="--field", fix=f"FIELD is {' or '.join(fields)}")
            for column in [column for column in tags if tags[column] not in KINDS]:
                problems.add(f"expected COLUMN=KIND, got '{column}={tags[column]}'", where="--tag", fix=kinds)
        return Reading(dict(columns), self.on_missing_input, tags)


@contextmanager
def with_option_names() -> Iterator[None]:
    """Errors that leave the context name this command's options instead of configuration keys.

    For a command as a whole, as its decorator: what is collected on the way is raised in the end.
    """
    with restated(_translated):
        yield


def option_words(text: str) -> str:
    """A text with this command's options in the place of configuration keys."""
    for key, option in _OWN_OPTIONS:
        text = key.sub(option, text)
    return text


def _translated(problem: InputError) -> InputError:
    where, fix = option_words(problem.where), option_words(problem.fix)
    return InputError(problem.what, where=where, why=problem.why, fix=fix)


def _pairs(problems: Problems, option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    """The halves of ``NAME=VALUE`` options."""
    pairs = {}
    for text in texts:
        name, _, value = text.rpartition("=") if option == "--tag" else text.partition("=")
        if not name or not value:
            problems.add(f"expected {form}, got {text!r}", where=option, fix=f"{option} {form}")
        else:
            pairs[name] = value
    return pairs
