"""Records to token ids, in training, evaluation and generation alike: prompt + answer + end token (such as ``</s>``) as
one text, with loss on answers and their end tokens only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from galpaca.data.prompting import Prompting
from galpaca.data.records import Record, Turn
from galpaca.data.scripts import Scripts, from_tags, to_tags


class Encoder(Protocol):
    """What encoding needs of a tokenizer; ``Tokenizer`` implements it."""

    eos_id: int

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]: ...

    def mark(self, field: str, before: Sequence[str] = ()) -> str: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Encoding(NamedTuple):
    """One record as the model sees it.

    Attributes:
        ids: token ids, truncated to ``max_length``.
        spans: start and stop of each span of targets, as ``EncodedExamples`` has them.
        full_length: tokens before truncation.
        full_targets: target tokens before truncation.
        lost_turns: turns that were left out as a whole.
        is_merged: the prompt alone has other ids, since an answer's first characters are in a token of its prompt.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    full_length: int
    full_targets: int
    lost_turns: int = 0
    is_merged: bool = False

    @property
    def num_targets(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    @property
    def lost_target_tokens(self) -> int:
        return self.full_targets - self.num_targets

    @property
    def is_truncated(self) -> bool:
        return self.full_length > len(self.ids)


@dataclass(frozen=True)
class RecordEncoder:
    """How records become ids: with which tokenizer and template.

    Each field of a record is marked for splitting before the template goes around it, so a sequence ends where its
    field ends. The ids of a prompt are the head of those of its record, unless the answer's first characters merge
    with the prompt's last token.

    Attributes:
        scripts: ``galactica`` for sub- and superscripts between tags, ``keep`` for what the tokenizer makes of them.
    """

    tokenizer: Encoder
    template: Prompting
    scripts: Scripts = "keep"

    def prompt_ids(self, questions: Sequence[Record]) -> list[list[int]]:
        """Ids of everything ahead of the last answer of each record, as they stand at the head of an example."""
        encoded = self._encoded(questions, is_question=True)
        return [[i for one in turns[:-1] for i in one.ids] + turns[-1].prompt_ids for turns in encoded]

    def encode(self, records: Sequence[Record], max_length: int) -> Iterator[Encoding]:
        """Encodes each record, truncated to ``max_length`` tokens, a conversation to the whole turns that fit.

        As many leading tokens of a turn as its prompt alone has carry no loss: the reference's rule.
        """
        for turns in self._encoded(records):
            yield _joined(turns, max_length)

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        end_text = self.template.end_text
        return self.tokenizer.eos_id if end_text is None else self.tokenizer.encode([end_text], bare=True)[0][-1]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of an answer, for a reader."""
        text = self.tokenizer.decode(ids)
        return from_tags(text) if self.scripts == "galactica" else text

    def written(self, text: str) -> str:
        """A field as it is marked and tokenized."""
        return to_tags(text) if self.scripts == "galactica" else text

    def _encoded(self, records: Sequence[Record], is_question: bool = False) -> Iterator[list["_EncodedTurn"]]:
        """The turns of each record. A template that writes whole texts has a later turn tokenized behind the end of the
        answer before, as it stands in the whole.
        """
        texts = [self._texts(record, is_question) for record in records]
        whole_text = self.template.end_text
        end, last = ("", [self.tokenizer.eos_id]) if whole_text is None else (whole_text, [])
        encode = self.tokenizer.encode if whole_text is None else partial(self.tokenizer.encode, bare=True)
        aheads = [end if number else "" for one in texts for number, _ in enumerate(one)]
        turns = list(zip(aheads, (turn for one in texts for turn in one), strict=True))
        whole = encode([ahead + prompt + answer + end for ahead, (prompt, answer) in turns])
        alone = encode([ahead + prompt for ahead, (prompt, _) in turns])
        [in_front] = encode([end])  # of a later turn
        pairs = zip(whole, alone, strict=True)
        for one in texts:
            found = []
            for number, (ids, prompt_ids) in enumerate(next(pairs) for _ in one):
                again = len(in_front) if number else 0  # of a text, not of each turn
                found.append(_EncodedTurn([*ids[again:], *last], prompt_ids[again:]))
            yield found

    def texts(self, record: Record) -> list[tuple[str, str]]:
        """Prompt and answer of each turn, as they are tokenized.

        Raises:
            InputError: the template cannot write the record.
        """
        return self._texts(record, is_question=False)

    def _texts(self, record: Record, is_question: bool) -> list[tuple[str, str]]:
        """Prompt and answer of each turn, marked."""
        mark = self.tokenizer.mark
        written = [Turn(*map(self.written, turn)) for turn in record.turns]
        turns = tuple(
            Turn(mark(one.instruction), mark(one.input), mark(one.output, before=(one.instruction, one.input)))
            for one in written
        )
        return self.template.turns(Record(turns, mark(self.written(record.system))), is_question)


class _EncodedTurn(NamedTuple):
    """A turn, with its end, and its prompt alone."""

    ids: list[int]
    prompt_ids: list[int]

    def span(self, offset: int, end: int) -> tuple[int, int]:
        """Its targets in a text where it begins at ``offset``, and that ends at ``end``."""
        return max(1, offset + min(len(self.prompt_ids), len(self.ids))), min(offset + len(self.ids), end)


def _joined(turns: Sequence[_EncodedTurn], max_length: int) -> Encoding:
    offsets = [0]
    for turn in turns:
        offsets.append(offsets[-1] + len(turn.ids))
    num_kept = max(1, sum(offset <= max_length for offset in offsets[1:]))
    ids = [i for turn in turns[:num_kept] for i in turn.ids][:max_length]
    kept = [turn.span(offset, len(ids)) for turn, offset in zip(turns[:num_kept], offsets, strict=False)]
    full = [turn.span(offset, offsets[-1]) for turn, offset in zip(turns, offsets, strict=False)]
    return Encoding(
        ids,
        [(start, stop) for start, stop in kept if start < stop],
        full_length=offsets[-1],
        full_targets=sum(stop - start for start, stop in full),
        lost_turns=len(turns) - num_kept,
        is_merged=any(turn.ids[: len(turn.prompt_ids)] != turn.prompt_ids for turn in turns),
    )
