"""What encoding needs of a prompt template, before and after there is a tokenizer."""

from typing import Any, Protocol

from galpaca.data.records import Record


class Prompting(Protocol):
    """A template that belongs to a tokenizer, or to all.

    Attributes:
        end_text: text of the token that ends an answer, where the template's text is whole, from a text's first token
            on; None where the tokenizer begins a text, and its ``eos_id`` ends an answer.
    """

    @property
    def end_text(self) -> str | None: ...

    def prompts(self, record: Record) -> list[str]:
        """The text ahead of each answer, from the end of the answer before."""
        ...

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]:
        """The same, each with its answer; of a question, the last answer is still to be written."""
        ...


class BoundTemplate(Prompting, Protocol):
    """What training and releasing need besides.

    Attributes:
        jinja: the chat template that a released tokenizer has; None where it is made of the template's texts.
        fingerprint: SHA-256 of what decides the text.
        former_fingerprint: the fingerprint that it had before there were conversations.
    """

    @property
    def name(self) -> str: ...

    @property
    def takes_input(self) -> bool: ...

    @property
    def jinja(self) -> str | None: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def former_fingerprint(self) -> str: ...

    def question_of(self, text: str) -> Record:
        """The question that a prompt was made of; of a conversation, all of the prompt."""
        ...

    def bound(self, tokenizer: Any) -> "BoundTemplate": ...

    def dated(self, date: str) -> "AnyTemplate":
        """The same with another date for today."""
        ...

    def check(self, record: Record) -> None: ...

    def saved(self) -> dict[str, Any]: ...


class AnyTemplate(Protocol):
    """A template that a tokenizer may still be missing.

    Attributes:
        takes_input: whether the released chat template takes a message's ``input`` beside its ``content``; else it
            stands below the instruction, behind an empty line.
    """

    @property
    def name(self) -> str: ...

    @property
    def takes_input(self) -> bool: ...

    def bound(self, tokenizer: Any) -> BoundTemplate:
        """The template of a tokenizer."""
        ...

    def check(self, record: Record) -> None:
        """Checks that it can write a record of this kind, as far as that is known without a tokenizer."""
        ...

    def saved(self) -> dict[str, Any]:
        """What ``galpaca.json`` has of it."""
        ...
