"""Prompt templates: small YAML files with a text for records with an input, one for those without, and two more for
conversations; or the tokenizer's own chat template.
"""

import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import yaml

from galpaca.data.chat_template import CHAT_TEMPLATE, UnboundChatTemplate
from galpaca.data.pinned_date import TEMPLATE_DATE
from galpaca.data.prompting import AnyTemplate
from galpaca.data.records import Record
from galpaca.errors import InputError, Problems

_FIELDS = {
    "with_input": {"instruction", "input"},
    "without_input": {"instruction"},
    "turn": {"instruction"},
    "system": {"system"},
}
_OPTIONAL = ("turn", "system")
_KEYS = " (keys with_input, without_input; turn and system for conversations)"
_CONVERSATION = {"turn": "later questions", "system": "a system message"}


@dataclass(frozen=True)
class Template:
    """A prompt template; the answer follows the last character of the prompt.

    Attributes:
        name: the shipped template's name, or the file's path.
        with_input: text with ``{instruction}`` and ``{input}``; literal braces are doubled.
        without_input: text with ``{instruction}``, for records whose input is empty.
        turn: text with ``{instruction}`` that follows the end of an answer, for the later questions of a conversation;
            None for templates of a single question.
        system: text with ``{system}`` that goes ahead of the first prompt; None where nothing may stand there.
        end_text, jinja, takes_input: as ``galpaca.data.prompting`` has them. The tokenizer begins a text, and its
            ``eos_id`` ends an answer.
    """

    end_text: ClassVar[str | None] = None
    jinja: ClassVar[str | None] = None
    takes_input: ClassVar[bool] = True

    name: str
    with_input: str
    without_input: str
    turn: str | None = None
    system: str | None = None

    def prompt(self, instruction: str, input: str = "") -> str:
        """The prompt of a single question."""
        if input:
            return self.with_input.format(instruction=instruction, input=input)
        return self.without_input.format(instruction=instruction)

    def prompts(self, record: Record) -> list[str]:
        """The text that the model reads before each answer of a record, from the end of the answer before.

        Raises:
            InputError: the record has several turns or a system, and the template has no text for them.
        """
        with Problems() as problems:
            for key, needed in (("turn", len(record.turns) > 1), ("system", bool(record.system))):
                if needed and getattr(self, key) is None:
                    problems.add(
                        f"the template has no text for {_CONVERSATION[key]}: the key {key!r} is missing",
                        where=self.name,
                        fix=f"add it to the file, or use another template: {' or '.join(shipped_templates())}",
                    )
            if any(turn.input for turn in record.turns[1:]):
                what = "only the first question of a conversation may have an input"
                problems.add(what, where=self.name, fix="put it into the instruction")
        first, *others = record.turns
        ahead = self.system.format(system=record.system) if self.system and record.system else ""
        follow = self.turn or ""
        return [
            ahead + self.prompt(first.instruction, first.input),
            *(follow.format(instruction=other.instruction) for other in others),
        ]

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]:
        """Prompt and answer of each turn.

        Raises:
            InputError: as ``prompts``.
        """
        return [(prompt, turn.output) for prompt, turn in zip(self.prompts(record), record.turns, strict=True)]

    def question_of(self, text: str) -> Record:
        """The question that a prompt was made of; of a conversation, all of the prompt."""
        for form in (self.with_input, self.without_input):
            if match := re.fullmatch(_pattern(form), text, re.DOTALL):
                return Record.of(**match.groupdict())
        return Record.of(text.strip())

    def bound(self, tokenizer: object) -> "Template":
        """Itself: its texts are the same for every tokenizer."""
        return self

    def dated(self, date: str) -> "Template":
        """Itself: it knows no day."""
        return self

    def check(self, record: Record) -> None:
        """Checks that it can write a record of this kind.

        Raises:
            InputError: as ``prompts``.
        """
        self.prompts(record)

    def saved(self) -> dict[str, Any]:
        """What ``saved_template`` reads."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the texts; the name does not count."""
        texts = [self.with_input, self.without_input, *filter(None, (self.turn, self.system))]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    @property
    def former_fingerprint(self) -> str:
        """The fingerprint that a template had before there were conversations."""
        return replace(self, turn=None, system=None).fingerprint


def shipped_templates() -> list[str]:
    folder = resources.files("galpaca.data") / "templates"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def template_names() -> list[str]:
    """What one may name: shipped templates, and the tokenizer's own."""
    return [*shipped_templates(), CHAT_TEMPLATE]


def find_template(name_or_path: str, date: str = TEMPLATE_DATE) -> AnyTemplate:
    """A template by name or path: the tokenizer's own, to be bound to it later, or one of texts.

    Args:
        date: what a tokenizer's template takes for today, such as ``2024-07-26``.

    Raises:
        InputError: as ``load_template``; or no date.
    """
    return UnboundChatTemplate(date) if name_or_path == CHAT_TEMPLATE else load_template(name_or_path)


def template_words(name: str, date: str) -> str:
    """A template as a paper names it."""
    if name == CHAT_TEMPLATE:
        return f"the chat template of the model's tokenizer, which took {date} for today"
    return f"the prompt template {name}"


def saved_template(content: Mapping[str, Any]) -> AnyTemplate:
    """A template from what its ``saved`` gave, as any version has written it.

    Raises:
        InputError, KeyError, TypeError, AttributeError: it is damaged.
    """
    if content["name"] == CHAT_TEMPLATE and "with_input" not in content:
        return UnboundChatTemplate.of_saved(content)
    texts = {key: text for key, text in content.items() if text is not None}
    return template_of(texts, str(texts.pop("name")))


def load_template(name_or_path: str) -> Template:
    """Loads a shipped template by name, or the user's own by the path of its YAML file.

    Raises:
        InputError: no such template or file, invalid YAML, missing or unknown keys or placeholders.
    """
    text = _read(name_or_path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"invalid YAML: {getattr(error, 'problem', None) or error}",
            where=f"{name_or_path}, line {mark.line + 1}" if mark else name_or_path,
            fix=_example(),
        ) from None
    if not isinstance(content, dict):
        raise InputError("the template is not a mapping", where=name_or_path, fix=_example())
    return template_of(content, name_or_path)


def template_of(content: Mapping[str, Any], name_or_path: str) -> Template:
    """A template from its texts.

    Raises:
        InputError: missing or unknown keys or placeholders, or other values than texts.
    """
    with Problems() as problems:
        for key in sorted(content.keys() - _FIELDS.keys(), key=str):
            problems.add(f"unknown key {key!r}", where=name_or_path, fix=_example())
        for key, fields in _FIELDS.items():
            if key in content or key not in _OPTIONAL:
                _check_text(problems, key, content.get(key), fields, name_or_path)
    return Template(name_or_path, **content)


def _read(name_or_path: str) -> str:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read the template: {reason}", where=path, fix=_example()) from None
    if name_or_path in shipped_templates():
        return (resources.files("galpaca.data") / "templates" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    raise InputError(
        f"unknown template {name_or_path!r}",
        where="data.template",
        fix=f"one of {', '.join(template_names())}, or the path of your own .yaml file",
    )


def _check_text(problems: Problems, key: str, text: object, fields: set[str], where: str) -> None:
    if not isinstance(text, str):
        problems.add(f"{key!r} is missing or not a string", where=where, fix=_example())
        return
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        problems.add(f"{key!r}: {error}", where=where, fix="double literal braces: {{ and }}")
        return
    if found != fields:
        what = f"{key!r} must have the placeholders {sorted(fields)}, got {sorted(found)}"
        fix = "name each placeholder once, and double literal braces: {{ and }}"
        problems.add(what, where=where, fix=fix)


def _pattern(text: str) -> str:
    parts = string.Formatter().parse(text)
    return "".join(re.escape(literal) + (f"(?P<{name}>.*)" if name else "") for literal, name, _, _ in parts)


def _example() -> str:
    return "see the shipped templates: " + ", ".join(shipped_templates()) + _KEYS
