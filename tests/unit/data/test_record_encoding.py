"""Prompts in training are those of generation, whatever stands in a record; conversations are turns with a loss on each
answer.
"""

import random
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from galpaca.data.encoded_set import encode
from galpaca.data.encoding import Encoding, RecordEncoder
from galpaca.data.examples import EncodedExamples
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import Template, load_template
from galpaca.data.records import Record, RecordSet, Turn
from galpaca.data.sequences import SEQUENCE_TAGS, SPLIT_MARKER
from galpaca.data.sources.table import Places
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputErrors

NUM_RANDOM = 10_000
WORDS = [
    *SEQUENCE_TAGS,
    *("MKVLLA", "C(=O)O", "ACGT", " ", "\n", "\n\n", ":", "//", ".", "the water", "x²", "10⁻³", "é水🧪", "</s>", "<s>"),
    *("[START_REF]", "[END_REF]", "<work>", "### Response:", "{input}", "[START_", "SPL1T"),
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> RecordEncoder:
    return RecordEncoder(tokenizer, load_template("alpaca"))


class Merging:
    """A tokenizer with a token for two colons, as GALACTICA's vocabulary has some for a run of one character."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.eos_id, self.mark = tokenizer, tokenizer.eos_id, tokenizer.mark
        self.decode = tokenizer.decode
        [[self._colon]] = tokenizer.encode([":"])

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]:
        return [self._merged(ids) for ids in self._tokenizer.encode(texts)]

    def _merged(self, ids: list[int]) -> list[int]:
        found: list[int] = []
        for i in ids:
            if found[-1:] == [self._colon] == [i]:
                found[-1] = 70_000
            else:
                found.append(i)
        return found


def random_text(draw: random.Random) -> str:
    return "".join(draw.choices(WORDS, k=draw.randrange(6)))


def random_record(draw: random.Random, num_turns: int = 1) -> Record:
    turns = [Turn(random_text(draw), random_text(draw) if not i else "", random_text(draw)) for i in range(num_turns)]
    return Record(tuple(turns), random_text(draw) if num_turns > 1 else "")


def encoded(encoder: RecordEncoder, *records: Record, max_length: int = 10_000) -> list[Encoding]:
    return list(encoder.encode(records, max_length))


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return tokenizer.pieces(ids)


@pytest.mark.parametrize("merges", [False, True])
def test_a_prompt_is_the_head_of_its_record_or_counted(encoder: RecordEncoder, merges: bool) -> None:
    """A sequence that was open at a prompt's end went on through the template, in training only."""
    encoder = RecordEncoder(Merging(encoder.tokenizer), encoder.template) if merges else encoder
    draw = random.Random(0)
    records = [random_record(draw, draw.choice([1, 1, 1, 2, 3])) for _ in range(NUM_RANDOM)]
    found = encoded(encoder, *records)
    prompts = encoder.prompt_ids([Record((*r.turns[:-1], r.turns[-1]._replace(output="")), r.system) for r in records])
    differ = [one.ids[: len(ids)] != ids for one, ids in zip(found, prompts, strict=True)]
    merged = [one.is_merged for one in found]
    assert all(counted or not differs for counted, differs in zip(merged, differ, strict=True))
    # Of one turn, exactly those; of several, an earlier answer may have merged, in both.
    single = [i for i, record in enumerate(records) if len(record.turns) == 1]
    assert [merged[i] for i in single] == [differ[i] for i in single]
    assert sum(merged) == 0 or merges
    assert all(record.turns[-1].output.startswith(":") for record, one in zip(records, differ, strict=True) if one)
    assert sum(differ) > NUM_RANDOM / 100 or not merges


def test_the_text_is_the_template_with_the_fields_and_an_end_after_each_answer(
    tokenizer: Tokenizer, encoder: RecordEncoder
) -> None:
    draw = random.Random(1)
    template = load_template("alpaca")
    for number in range(300):
        record = random_record(draw, 1 + number % 3)
        [one] = encoded(encoder, record)
        answers = [turn.output for turn in record.turns]
        parts = zip(template.prompts(record), answers, strict=True)
        whole = "".join(f"{prompt}{answer}</s>" for prompt, answer in parts)
        normalized = tokenizer.hf.backend_tokenizer.normalizer.normalize_str(whole)
        assert tokenizer.hf.decode(one.ids, clean_up_tokenization_spaces=False) == normalized


class TestSequences:
    def test_a_sequence_that_is_open_at_the_end_of_the_prompt(
        self, tokenizer: Tokenizer, encoder: RecordEncoder
    ) -> None:
        """``### Response:`` was cut into letters."""
        record = Record.of("Complete:", "[START_AMINO]MK", "VL[END_AMINO] is stable.")
        [one] = encoded(encoder, record)
        pieces = spelled(tokenizer, one.ids)
        at = pieces.index("[START_AMINO]")
        template = spelled(tokenizer, tokenizer.encode(["\n\n### Response:"])[0])
        assert pieces[at + 1 :][: 2 + len(template) + 3] == ["M", "K", *template, "V", "L", "[END_AMINO]"]
        assert [tokenizer.decode(one.ids[start:stop]) for start, stop in one.spans] == ["VL[END_AMINO] is stable."]
        [prompt] = encoder.prompt_ids([Record.of("Complete:", "[START_AMINO]MK")])
        assert one.ids[: len(prompt)] == prompt

    def test_neither_the_template_nor_the_next_field_is_part_of_it(
        self, tokenizer: Tokenizer, encoder: RecordEncoder
    ) -> None:
        [one] = encoded(encoder, Record.of("Describe [START_SMILES]CO", "of the[END_SMILES] water", "the water"))
        tail = "\n\n### Input:\nof the[END_SMILES] water\n\n### Response:the water"
        expected = [*tokenizer.encode([tail])[0], tokenizer.eos_id]
        assert one.ids[-len(expected) :] == expected

    def test_open_sequences_are_counted(self, tokenizer: Tokenizer) -> None:
        closed = Record.of("a [START_DNA]AC[END_DNA]", "", "b")
        records = [closed, Record.of("[START_DNA]A", "", "b"), Record.of("a", "", "[START_AMINO]MK")]
        assert whole_set(tokenizer, *records).receipt.open_sequences == 2

    def test_merged_prompts_are_counted(self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tokenizer, "encode", Merging(copy(tokenizer)).encode)
        monkeypatch.setattr(tokenizer, "vocab_size", 70_001)
        records = [Record.of("Say it", "", ": a colon"), Record.of("Say it", "", "no colon")]
        receipt = whole_set(tokenizer, *records).receipt
        assert (receipt.merged_prompts, receipt.open_sequences) == (1, 0)
        assert dict(receipt.rows())["answers that share a token with their prompt"].startswith("1 (first: record 1;")


def whole_set(tokenizer: Tokenizer, *records: Record, **policy: Any) -> EncodedExamples:
    places = Places.of("a.json", [None] * len(records))
    chosen = EncodingPolicy(**{"max_length": 512, **policy})
    return encode(RecordSet("a.json", list(records), places, {}), tokenizer, load_template("alpaca"), chosen)


TALK = Record((Turn("Name a gas.", "", "Helium."), Turn("Another?", "", "Neon."), Turn("One more?", "", "Argon.")))


class TestConversations:
    def test_every_answer_and_its_end_carry_loss_and_nothing_else(
        self, tokenizer: Tokenizer, encoder: RecordEncoder
    ) -> None:
        [one] = encoded(encoder, TALK)
        texts = [tokenizer.hf.decode(one.ids[start:stop]) for start, stop in one.spans]
        assert texts == ["Helium.</s>", "Neon.</s>", "Argon.</s>"]
        assert one.num_targets == one.full_targets == sum(stop - start for start, stop in one.spans)

    def test_the_first_turn_alone_is_alpacas(self, encoder: RecordEncoder) -> None:
        [whole], [first] = encoded(encoder, TALK), encoded(encoder, Record(TALK.turns[:1]))
        assert whole.ids[: len(first.ids)] == first.ids
        assert whole.spans[:1] == first.spans

    def test_it_is_truncated_at_whole_turns_and_the_lost_are_counted(
        self, tokenizer: Tokenizer, encoder: RecordEncoder
    ) -> None:
        heads = [encoded(encoder, Record(TALK.turns[:count]))[0] for count in (1, 2, 3)]
        lengths = [len(head.ids) for head in heads]
        for max_length, kept in [(lengths[2], 3), (lengths[2] - 1, 2), (lengths[1], 2), (lengths[1] - 1, 1)]:
            [one] = encoded(encoder, TALK, max_length=max_length)
            assert (one.ids, one.spans) == (heads[kept - 1].ids, heads[kept - 1].spans)
            assert (one.lost_turns, one.is_truncated) == (3 - kept, kept < 3)
            assert one.lost_target_tokens == heads[2].num_targets - heads[kept - 1].num_targets
        receipt = whole_set(tokenizer, TALK, max_length=lengths[1]).receipt
        assert (receipt.truncated_examples, receipt.lost_turns) == (1, 1)

    def test_a_first_turn_that_is_too_long_is_truncated_as_any_example(self, encoder: RecordEncoder) -> None:
        [first], [one] = encoded(encoder, Record(TALK.turns[:1])), encoded(encoder, TALK, max_length=9)
        assert (one.ids, one.spans, one.lost_turns) == (first.ids[:9], [], 2)

    def test_a_system_message_stands_ahead(self, tokenizer: Tokenizer, encoder: RecordEncoder) -> None:
        [plain], [one] = encoded(encoder, TALK), encoded(encoder, TALK._replace(system="Be brief."))
        ahead = tokenizer.encode(["Be brief.\n\n"])[0]
        assert one.ids == ahead + plain.ids
        assert one.spans == [(start + len(ahead), stop + len(ahead)) for start, stop in plain.spans]

    def test_a_template_without_texts_for_them_is_refused_with_what_to_add(self, tokenizer: Tokenizer) -> None:
        template = Template("mine.yaml", "{instruction} {input}", "{instruction}")
        with pytest.raises(InputErrors) as caught:
            encoded(RecordEncoder(tokenizer, template), TALK._replace(system="Be brief."))
        assert ["'turn' is missing" in p.what or "'system' is missing" in p.what for p in caught.value.problems] == [
            True
        ] * 2
        assert {p.where for p in caught.value.problems} == {"mine.yaml"}

    def test_what_a_tokenizer_puts_in_front_of_a_text_stands_once(self) -> None:
        class Prefixing:
            eos_id = 0

            def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]:
                return [[7, *map(ord, text)] for text in texts]

            def mark(self, field: str, before: Sequence[str] = ()) -> str:
                return field

            def decode(self, ids: Sequence[int]) -> str:
                return "".join(map(chr, ids))

        template = Template("t", "{instruction}+{input}:", "{instruction}:", turn="|{instruction}:")
        [one] = encoded(RecordEncoder(Prefixing(), template), Record((Turn("a", "", "b"), Turn("c", "", "d"))))
        assert one.ids == [7, *map(ord, "a:b"), 0, *map(ord, "|c:d"), 0]
        assert one.spans == [(3, 5), (8, 10)]


def test_a_literal_marker_is_lost_and_counted(tokenizer: Tokenizer) -> None:
    assert whole_set(tokenizer, Record.of("a", "", f"b{SPLIT_MARKER}")).receipt.with_split_marker == 1
