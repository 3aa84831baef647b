"""What a chat template must be like to be trained with: it writes answers, ends them, and keeps earlier turns."""

from collections.abc import Sequence
from typing import Any, Protocol

from galpaca.data.answer_end import AnswerEnd, answer_end
from galpaca.data.chat_rendering import OWN_TEMPLATE_FIX, messages_of, rendered
from galpaca.data.records import Record, Turn
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.errors import InputError, first_line

# Stand in no template.
QUESTION, _ANSWER = "galpaca-7c21", "galpaca-0f3a"
PROBE = Record.of(QUESTION, "", _ANSWER)
# Drops what one would think of: whatever is behind the answer of a reasoning model.
_REASONED = f"<think>\n{QUESTION}\n</think>\n\n{_ANSWER}"


class ChatTokenizer(Protocol):
    """What a chat template needs of a tokenizer; ``Tokenizer`` implements it."""

    @property
    def hf(self) -> Any: ...

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]: ...

    def mark(self, field: str, before: Sequence[str] = ()) -> str: ...


class Writing(Protocol):
    """What is looked at of a template; ``ChatTemplate`` implements it."""

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]: ...

    def prompts(self, record: Record) -> list[str]: ...

    def writes(self, record: Record) -> bool: ...


def behind_the_answer(text: str) -> str:
    """What stands behind the answer of ``PROBE`` in a text that has it."""
    return text.rpartition(_ANSWER)[2]


def known_end(hf: Any, text: str, tokenizer: ChatTokenizer) -> AnswerEnd:
    """What stands behind an answer.

    Raises:
        InputError: the template writes no answers, or no token ends them.
    """
    where = str(hf.name_or_path)
    try:
        whole = rendered(hf, text, messages_of(PROBE, answered=True), is_prompt=False)
    except Exception as error:  # whatever the template raises
        what = f"the chat template does not write a question and its answer: {first_line(error)}"
        raise InputError(what, where=where, fix=OWN_TEMPLATE_FIX) from None
    if _ANSWER not in whole or QUESTION not in whole:
        left_out = "answers" if QUESTION in whole else "questions"
        raise InputError(f"the chat template leaves {left_out} out", where=where, fix=OWN_TEMPLATE_FIX)
    end = answer_end(hf, behind_the_answer(whole))
    if end is None or tokenizer.encode([end.text], bare=True) != [[end.id]]:
        raise InputError(
            "the chat template writes no special token behind an answer",
            where=where,
            why="the model would not learn where an answer ends",
            fix=OWN_TEMPLATE_FIX,
        )
    return end


def check_turns(template: Writing) -> None:
    """A template that knows no second turn is none that rewrites the first.

    Raises:
        InputError: earlier turns are written differently once others follow.
    """
    for answer in (_ANSWER, _REASONED):
        turns = (Turn(QUESTION, "", answer), Turn(QUESTION, "", _ANSWER))
        if template.writes(Record(turns)):
            template.turns(Record(turns))
        else:
            template.turns(Record(turns[:1]))


def check_marks(template: Writing, tokenizer: ChatTokenizer) -> None:
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
