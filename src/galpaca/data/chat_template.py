"""A tokenizer's own chat template as a prompt template: what it writes is trained on, and generated from."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from galpaca.data.answer_end import AnswerEnd, answer_end
from galpaca.data.chat_rendering import (
    OTHER_TEMPLATE_FIX,
    OWN_TEMPLATE_FIX,
    messages_of,
    only_turn,
    rendered,
    template_text,
)
from galpaca.data.pinned_date import TEMPLATE_DATE, parsed_date
from galpaca.data.records import Record
from galpaca.data.trainable_chat import (
    PROBE,
    QUESTION,
    ChatTokenizer,
    behind_the_answer,
    check_marks,
    check_turns,
    known_end,
)
from galpaca.errors import InputError, first_line

CHAT_TEMPLATE = "chat_template"


class ChatTemplate:
    """The chat template of a tokenizer, its date pinned.

    A conversation is one text, as the template writes it. An answer is what stands between the text that asks for it
    and the token that ends it; what follows that token belongs to the next prompt.

    Args:
        hf: the tokenizer of ``transformers``.
        text: the template, its date pinned.
        end: what stands behind an answer.

    Attributes:
        jinja: the template that a released tokenizer has.
        end_text: text of the token that ends an answer, which the template writes itself, as it does a text's first.
        fingerprint: SHA-256 of what decides the text that it writes.
    """

    name: ClassVar[str] = "its tokenizer's chat template"
    takes_input: ClassVar[bool] = False

    def __init__(self, hf: Any, text: str, date: str, end: AnswerEnd) -> None:
        self._hf, self.jinja, self.date, self._end = hf, text, date, end
        self.end_text = end.text
        ends_of_texts = [str(getattr(hf, key) or "") for key in ("bos_token", "eos_token")]  # templates write them
        self.fingerprint = hashlib.sha256("\0".join([text, *ends_of_texts, *end[:3]]).encode()).hexdigest()

    @property
    def former_fingerprint(self) -> str:
        """No run of that time had a chat template, so it is that of none of them."""
        return self.fingerprint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChatTemplate) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def bound(self, tokenizer: ChatTokenizer) -> "ChatTemplate":
        return self

    def dated(self, date: str) -> "UnboundChatTemplate":
        """The same on another day."""
        return UnboundChatTemplate(date)

    def check(self, record: Record) -> None:
        """Each record is checked when it is written."""

    def saved(self) -> dict[str, Any]:
        """What ``UnboundChatTemplate.of_saved`` reads; the text itself is in the tokenizer's files."""
        return {"name": CHAT_TEMPLATE, "date": self.date, "fingerprint": self.fingerprint}

    def prompts(self, record: Record) -> list[str]:
        """The text that the model reads before each answer of a record, from the end of the answer before.

        Raises:
            InputError: the template cannot write the record.
        """
        return [prompt for prompt, _ in self.turns(record, is_question=True)]

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]:
        """Prompt and answer of each turn as the template writes them; the token that ends an answer follows each.

        Args:
            is_question: the last answer is still to be written, and empty.

        Raises:
            InputError: the template cannot write the record, or writes its answers or earlier turns differently than
                they are.
        """
        pairs: list[tuple[str, str]] = []
        done = ""
        for number, turn in enumerate(record.turns, start=1):
            so_far = Record(record.turns[:number], record.system)
            head = self._rendered(so_far, answered=False)
            if not head.startswith(done):
                raise _rewrites(self.name)
            prompt, answer = head[len(done) :], ""
            if number < len(record.turns) or not is_question:
                answer = self._answer(head, self._rendered(so_far, answered=True), turn.output)
            pairs.append((prompt, answer))
            done = head + answer + self.end_text
        return pairs

    def question_of(self, text: str) -> Record:
        """The question that a prompt was made of; of a conversation, all of the prompt."""
        [prompt] = self.prompts(Record.of(QUESTION))
        before, _, behind = prompt.partition(QUESTION)
        is_single = text.startswith(before) and text.endswith(behind) and len(text) >= len(before) + len(behind)
        return Record.of(text[len(before) : len(text) - len(behind)] if is_single else text.strip())

    def _answer(self, head: str, whole: str, answer: str) -> str:
        """The answer as it stands in a text, up to the token that ends it."""
        tail = self._end.whole
        if not whole.startswith(head):
            raise _rewrites(self.name)
        rest = whole[len(head) :]
        if not rest.endswith(tail) or answer.strip() not in rest:
            raise InputError(
                "the chat template does not write an answer as it is",
                where=self.name,
                why="what the model is to write would not be what the record says",
                fix=f"answers without what it rewrites, such as <think>; or {OTHER_TEMPLATE_FIX}",
            )
        return rest[: len(rest) - len(tail)] + self._end.before

    def _rendered(self, record: Record, answered: bool) -> str:
        """The text of a conversation up to its last answer, or behind it.

        Raises:
            InputError: the template does not write it.
        """
        try:
            return rendered(self._hf, self.jinja, messages_of(record, answered), is_prompt=not answered)
        except Exception as error:  # whatever the template raises
            raise InputError(
                f"the chat template does not write {self._kind(record)}: {first_line(error)}",
                where=self.name,
                fix=f"records of another kind, or {OTHER_TEMPLATE_FIX}",
            ) from None

    def _kind(self, record: Record) -> str:
        """What it is about a record that the template does not write."""
        if record.system and self.writes(Record(record.turns)):
            return "a record with a system message"
        return "a conversation of several turns" if len(record.turns) > 1 else "a record"

    def writes(self, record: Record) -> bool:
        """Whether it makes a prompt of a record."""
        try:
            rendered(self._hf, self.jinja, messages_of(record, answered=False), is_prompt=True)
        except Exception:  # whatever the template raises
            return False
        return True


class PromptsAlone(ChatTemplate):
    """A chat template that writes prompts, but no answers behind them as they are: of models that are only asked, and
    measured on answers as the record has them.
    """

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]:
        turn = only_turn(record, self.name)
        return [(self._rendered(record, answered=False), "" if is_question else turn.output)]


class UnboundChatTemplate:
    """The chat template of a tokenizer that is not there yet.

    Args:
        date: what the template takes for today, such as ``2024-07-26``.
        fingerprint: that of the template that the model was trained with, where there is one.

    Raises:
        InputError: no date.
    """

    name: ClassVar[str] = CHAT_TEMPLATE
    takes_input: ClassVar[bool] = False

    def __init__(self, date: str = TEMPLATE_DATE, fingerprint: str | None = None) -> None:
        self.date, self._fingerprint = date, fingerprint
        self._day = parsed_date(date)

    @classmethod
    def of_saved(cls, content: Mapping[str, Any]) -> "UnboundChatTemplate":
        """As ``ChatTemplate.saved`` has it.

        Raises:
            InputError, KeyError, TypeError: it is damaged.
        """
        if not isinstance(content["fingerprint"], str):
            raise TypeError("the fingerprint is no text")
        return cls(content["date"], content["fingerprint"])

    def saved(self) -> dict[str, Any]:
        return {"name": CHAT_TEMPLATE, "date": self.date, "fingerprint": self._fingerprint}

    def check(self, record: Record) -> None:
        """What it writes is known when there is a tokenizer."""

    def bound(self, tokenizer: ChatTokenizer) -> ChatTemplate:
        """The template of a tokenizer, for training.

        Raises:
            InputError: the tokenizer has none, or one that cannot be trained with; or it is not the one that the model
                was trained with.
        """
        hf, text = tokenizer.hf, template_text(tokenizer.hf, self._day)
        template = ChatTemplate(hf, text, self.date, known_end(hf, text, tokenizer))
        if self._fingerprint is not None and template.fingerprint != self._fingerprint:
            raise InputError(
                "the folder's chat template is not the one of the training",
                where="chat_template.jinja",
                why="a model answers badly when it is prompted differently than in training",
                fix="restore chat_template.jinja, tokenizer_config.json and galpaca.json, which belong together",
            )
        check_turns(template)
        check_marks(template, tokenizer)
        return template

    def for_questions(self, hf: Any) -> ChatTemplate:
        """The template of a model that is asked and measured as it is: it may write less than training needs.

        Raises:
            InputError: it does not write a single question.
        """
        text = template_text(hf, self._day)
        question = Record.of("instruction", "input")
        try:
            rendered(hf, text, messages_of(question, answered=False), is_prompt=True)
        except Exception as error:  # whatever the template raises
            what = f"cannot use the tokenizer's chat template: {first_line(error)}"
            raise InputError(what, where=str(hf.name_or_path), fix="fix or remove it") from None
        try:
            behind = behind_the_answer(rendered(hf, text, messages_of(PROBE, answered=True), is_prompt=False))
        except Exception:  # of any kind, where a template knows no turn of the assistant
            behind = ""
        end = answer_end(hf, behind) or AnswerEnd("", str(hf.eos_token), "", int(hf.eos_token_id))
        whole = ChatTemplate(hf, text, self.date, end)
        try:
            whole.turns(PROBE)
        except InputError:
            return PromptsAlone(hf, text, self.date, end)
        return whole


def _rewrites(name: str) -> InputError:
    return InputError(
        "the chat template writes earlier turns differently once others follow",
        where=name,
        why="what the model reads ahead of an answer would not be what it was trained on; some templates drop the "
        "reasoning of earlier answers",
        fix=OWN_TEMPLATE_FIX,
    )
