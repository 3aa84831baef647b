"""What a chat template writes behind an answer, and which token of it ends the answer."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple


class AnswerEnd(NamedTuple):
    """The text behind an answer, in three parts.

    Attributes:
        before: what stands ahead of the token, such as a space: it belongs to the answer.
        text: text of the token that ends an answer, such as ``<|im_end|>``.
        after: what stands behind the token, such as a newline: it belongs to the next prompt.
        id: of the token.
    """

    before: str
    text: str
    after: str
    id: int

    @property
    def whole(self) -> str:
        return self.before + self.text + self.after


def answer_end(hf: Any, behind: str) -> AnswerEnd | None:
    """The first special token of the text behind an answer; None where it has none.

    A token that was added, but is not called special, counts where there is no other: some tokenizers have their
    turns' ends so.

    Args:
        hf: the tokenizer of ``transformers``.
    """
    added = {str(one.content) for one in hf.added_tokens_decoder.values() if str(one.content).strip()}
    for tokens in (special_texts(hf), added):
        if found := _first(behind, tokens):
            start, text = found
            return AnswerEnd(behind[:start], text, behind[start + len(text) :], int(hf.convert_tokens_to_ids(text)))
    return None


def special_texts(hf: Any) -> set[str]:
    """The texts of all tokens that the tokenizer calls special."""
    added = (str(one.content) for one in hf.added_tokens_decoder.values() if one.special)
    return {text for text in (*added, *map(str, hf.all_special_tokens)) if text}


def _first(text: str, tokens: Collection[str]) -> tuple[int, str] | None:
    """Where the first of these tokens stands, and which it is; of two in one place, the longer."""
    found: Iterator[tuple[int, str]] = ((text.find(token), token) for token in tokens)
    return min((one for one in found if one[0] >= 0), key=lambda one: (one[0], -len(one[1])), default=None)
