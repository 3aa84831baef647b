"""Rows that are conversations: ``messages``, ShareGPT's ``conversations``, or ``prompt`` and ``completion``."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.data.forms.form import RowView, is_missing, kind_of, tagged
from galpaca.data.records import Record, Turn
from galpaca.errors import Problems

_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}
# Keys of who speaks, and of what is said.
_KEYS = (("role", "content"), ("from", "value"))
_FORM = 'write each message as {"role": "user", "content": "..."}, user and assistant in turns'


@dataclass(frozen=True)
class Messages:
    """Rows with a list of messages, of one column or of several, one after the other.

    Attributes:
        of: the columns.
        allows_question: the last message may be a question, without an answer.
        tags: kind of sequence by column, for columns of plain text.
    """

    of: Sequence[str]
    allows_question: bool = False
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self.of)

    def checked(self, columns: Mapping[str, int], source: str, problems: Problems) -> "Messages":
        return self  # a form of its kind is made where the columns are there

    def record(self, row: RowView) -> Record | None:
        said: list[Any] = []
        for column, role in zip(self.of, ("user", "assistant"), strict=False):
            value = row.value.get(column)
            if isinstance(value, str) and len(self.of) > 1:  # a prompt and its completion, in plain text
                value = [{"role": role, "content": tagged(value, self.tags.get(column))}]
            elif column in self.tags:
                fix = f"data.tags.{column} is for a column of texts"
                row.refuse(f"the field {column!r} has tags and is no text", fix)
                return None
            if not isinstance(value, list):
                row.refuse(f"the field {column!r} is {kind_of(value)}, not a list of messages", _FORM)
                return None
            said += value
        return self._conversation([self._message(row, number, one) for number, one in enumerate(said, 1)], row)

    def _message(self, row: RowView, number: int, message: Any) -> tuple[str, str] | None:
        """Role and text of a message; None where it has problems."""
        keys = next((keys for keys in _KEYS if isinstance(message, dict) and keys[0] in message), None)
        if keys is None or is_missing(message[keys[0]]):
            row.refuse(f"message {number} has no role", _FORM)
            return None
        role = _ROLES.get(str(message[keys[0]]).lower())
        if role is None:
            row.refuse(f"message {number} has the role {message[keys[0]]!r}", "roles are system, user and assistant")
            return None
        text = row.text(message.get(keys[1]), f"message {number} ({role})")
        return None if text is None else (role, text)

    def _conversation(self, said: Sequence[tuple[str, str] | None], row: RowView) -> Record | None:
        messages = [one for one in said if one is not None]
        if len(messages) < len(said):
            return None
        has_system = bool(messages) and messages[0][0] == "system"
        system = messages.pop(0)[1] if has_system else ""
        expected = ["user", "assistant"] * (len(messages) // 2 + 1)
        for number, ((role, _), wanted) in enumerate(zip(messages, expected, strict=False), start=1 + has_system):
            if role != wanted:
                why = "after an optional system message, user and assistant speak in turns"
                row.refuse(f"message {number} is of {role} where {wanted} has to speak", "fix the order", why)
                return None
        if len(messages) % 2 and self.allows_question:
            messages.append(("assistant", ""))
        if not messages or len(messages) % 2:
            what = "the conversation has no answer" if len(messages) < 2 else "the last question has no answer"
            row.refuse(what, "add the answer of the assistant, or remove the question")
            return None
        pairs = zip(messages[::2], messages[1::2], strict=True)
        return Record(tuple(Turn(question, "", answer) for (_, question), (_, answer) in pairs), system)
