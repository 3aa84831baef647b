"""A tokenizer's own chat template as a prompt template: what it writes is trained on, and generated from."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from galpaca.data.answer_end import AnswerEnd, answer_end
from galpaca.data.pinned_date import TEMPLATE_DATE, parsed_date, pinned
from galpaca.data.records import Record, Turn
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.errors import InputError, first_line

CHAT_TEMPLATE = "chat_template"

# Stand in no template.
_QUESTION, _ANSWER = "galpaca-7c21", "galpaca-0f3a"
_PROBE = Record.of(_QUESTION, "", _ANSWER)
_FIX = "data.template=alpaca, science, or a .yaml file"
_OWN_FIX = f"{_FIX}; or model.tokenizer=FOLDER with another chat template"
# Drops what one would think of: whatever is behind the answer of a reasoning model.
_REASONED = f"<think>\n{_QUESTION}\n</think>\n\n{_ANSWER}"


class ChatTokenizer(Protocol):
    """What a chat template needs of a tokenizer; ``Tokenizer`` implements it."""

    @property
    def hf(self) -> Any: ...

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]: ...

    def mark(self, field: str, before: Sequence[str] = ()) -> str: ...


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
        [prompt] = self.prompts(Record.of(_QUESTION))
        before, _, behind = prompt.partition(_QUESTION)
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
                fix=f"answers without what it rewrites, such as <think>; or {_FIX}",
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
                fix=f"records of another kind, or {_FIX}",
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
        template = ChatTemplate(hf, text, self.date, _known_end(hf, text, tokenizer))
        if self._fingerprint is not None and template.fingerprint != self._fingerprint:
            raise InputError(
                "the folder's chat template is not the one of the training",
                where="chat_template.jinja",
                why="a model answers badly when it is prompted differently than in training",
                fix="restore chat_template.jinja, tokenizer_config.json and galpaca.json, which belong together",
            )
        _check_turns(template)
        _check_marks(template, tokenizer)
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
            behind = rendered(hf, text, messages_of(_PROBE, answered=True), is_prompt=False).rpartition(_ANSWER)[2]
        except Exception:  # of any kind, where a template knows no turn of the assistant
            behind = ""
        end = answer_end(hf, behind) or AnswerEnd("", str(hf.eos_token), "", int(hf.eos_token_id))
        whole = ChatTemplate(hf, text, self.date, end)
        try:
            whole.turns(_PROBE)
        except InputError:
            return PromptsAlone(hf, text, self.date, end)
        return whole


def template_text(hf: Any, day: Any) -> str:
    """The tokenizer's template with its date pinned, its lines as they are read back from a file: what it writes is the
    same, since Jinja reads them so.

    Raises:
        InputError: it has none, or several without a default.
    """
    try:
        text = hf.get_chat_template()
    except Exception as error:  # the library's kinds are its own
        several = isinstance(getattr(hf, "chat_template", None), dict)
        what = f"no chat template: {first_line(error)}" if several else "the tokenizer has no chat template"
        raise InputError(what, where=str(hf.name_or_path), fix=_OWN_FIX) from None
    return pinned(str(text).replace("\r\n", "\n").replace("\r", "\n"), day)


def messages_of(record: Record, answered: bool) -> list[dict[str, str]]:
    """The messages of a record, up to its last answer or with it.

    An input stands below the instruction, behind an empty line.
    """
    messages = [{"role": "system", "content": record.system}] if record.system else []
    for turn in record.turns:
        messages.append({"role": "user", "content": "\n\n".join(filter(None, (turn.instruction, turn.input)))})
        messages.append({"role": "assistant", "content": turn.output})
    return messages if answered else messages[:-1]


def rendered(hf: Any, text: str, messages: Sequence[Mapping[str, str]], *, is_prompt: bool) -> str:
    """What a template makes of messages.

    Raises:
        Exception: whatever the template raises.
    """
    return str(
        hf.apply_chat_template(list(messages), chat_template=text, tokenize=False, add_generation_prompt=is_prompt)
    )


def only_turn(record: Record, name: str) -> Turn:
    """The one turn of a record.

    Raises:
        InputError: it has more, or a system.
    """
    if len(record.turns) > 1 or record.system:
        what = "earlier turns and a system message cannot be kept"
        raise InputError(what, where=name, fix="use records with one turn, or --template alpaca for all models")
    return record.turns[0]


def _known_end(hf: Any, text: str, tokenizer: ChatTokenizer) -> AnswerEnd:
    """What stands behind an answer.

    Raises:
        InputError: the template writes no answers, or no token ends them.
    """
    where = str(hf.name_or_path)
    try:
        whole = rendered(hf, text, messages_of(_PROBE, answered=True), is_prompt=False)
    except Exception as error:  # whatever the template raises
        what = f"the chat template does not write a question and its answer: {first_line(error)}"
        raise InputError(what, where=where, fix=_OWN_FIX) from None
    if _ANSWER not in whole or _QUESTION not in whole:
        left_out = "answers" if _QUESTION in whole else "questions"
        raise InputError(f"the chat template leaves {left_out} out", where=where, fix=_OWN_FIX)
    end = answer_end(hf, whole.rpartition(_ANSWER)[2])
    if end is None or tokenizer.encode([end.text], bare=True) != [[end.id]]:
        raise InputError(
            "the chat template writes no special token behind an answer",
            where=where,
            why="the model would not learn where an answer ends",
            fix=_OWN_FIX,
        )
    return end


def _check_turns(template: ChatTemplate) -> None:
    """A template that knows no second turn is none that rewrites the first.

    Raises:
        InputError: earlier turns are written differently once others follow.
    """
    for answer in (_ANSWER, _REASONED):
        turns = (Turn(_QUESTION, "", answer), Turn(_QUESTION, "", _ANSWER))
        if template.writes(Record(turns)):
            template.turns(Record(turns))
        else:
            template.turns(Record(turns[:1]))


def _check_marks(template: ChatTemplate, tokenizer: ChatTokenizer) -> None:
    """Fields are marked ahead of the template, and would be a second time.

    Raises:
        InputError: the template marks sequences itself.
    """
    text = "[START_SMILES]CC[END_SMILES]"
    if tokenizer.mark(text) != text and SPLIT_MARKER in template.prompts(Record.of(text))[0]:
        raise InputError(
            "the tokenizer's chat template splits sequences itself",
            where=str(tokenizer.hf.name_or_path),
            why="it is one that galpaca wrote of a prompt template, which says the same without it",
            fix="data.template=NAME of the template in galpaca.json",
        )


def _rewrites(name: str) -> InputError:
    return InputError(
        "the chat template writes earlier turns differently once others follow",
        where=name,
        why="what the model reads ahead of an answer would not be what it was trained on; some templates drop the "
        "reasoning of earlier answers",
        fix=_OWN_FIX,
    )
