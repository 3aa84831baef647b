"""Records become ids with loss on the answer only, and whatever became of them is counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from galpaca.data.encoded_set import encode
from galpaca.data.examples import EncodedExamples, labels_of, spans_behind
from galpaca.data.hashes import content_hash
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.prompts import Template, load_template
from galpaca.data.receipt import Receipt
from galpaca.data.records import Record, RecordSet
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.sources.table import Places
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, InputErrors

SHORT = Template("short", "{instruction}+{input}:", "{instruction}:")
END = 0


class Characters:
    """A tokenizer of one token a character, so that every figure can be counted by hand."""

    eos_id, vocab_size, splits_sequences = END, 1_000, False
    special_texts, end_text = frozenset(["<s>", "</s>", "<pad>", "<unk>"]), "</s>"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text] for text in texts]

    def mark(self, field: str, before: Sequence[str] = ()) -> str:
        return field

    def leaves_open(self, field: str) -> bool:
        return False

    def changes(self, text: str) -> bool:
        return "²" in text


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


def record_set(*records: Record, **facts: Any) -> RecordSet:
    places = Places.of("a.json", range(2, 2 + len(records)))
    return RecordSet(
        **{
            "source": "a.json",
            "records": list(records),
            "places": places,
            "ignored_columns": {},
            **facts,
        }
    )


def encoded(
    *records: Record,
    max_length: int = 12,
    vocab_size: int = 1_000,
    progress: Callable[[int], None] = lambda _: None,
    **policies: Any,
) -> EncodedExamples:
    characters: Any = Characters()
    characters.vocab_size = vocab_size
    return encode(record_set(*records), characters, SHORT, EncodingPolicy(max_length, **policies), progress)


def text_of(examples: EncodedExamples, index: int) -> str:
    return "".join(chr(i) if i else "$" for i in examples.ids(index))


# With ``SHORT`` and at most 12 tokens, counted by hand:        tokens   prompt   targets kept   lost
PLAIN = Record.of("do", "", "done")  #      do:done$            8       3         5            0
GIVEN = Record.of("do", "x²", "ok")  #      do+x²:ok$           9       6         3            0
EMPTY = Record.of("say", "", "")  #         say:$               5       4         1            0
LONG = Record.of("tell", "", "a story")  #  tell:a story$      13       5         7            1
FULL = Record.of("a" * 11, "", "no")  #     aaaaaaaaaaa:no$    15      12         0            3
OVER = Record.of("b" * 20, "", "x")  #      21 b and :, x$     23      21         0            2
ALL = (PLAIN, GIVEN, PLAIN, EMPTY, LONG, FULL, OVER)


def test_a_text_is_prompt_answer_and_end() -> None:
    examples = encoded(PLAIN, GIVEN, EMPTY)
    assert [text_of(examples, i) for i in range(3)] == ["do:done$", "do+x²:ok$", "say:$"]
    assert [examples.targets(i).tolist() for i in range(3)] == [[[3, 8]], [[6, 9]], [[4, 5]]]
    assert examples.num_targets.tolist() == [5, 3, 1]


def test_a_text_is_cut_at_max_length_and_so_is_its_prompt() -> None:
    examples = encoded(PLAIN, LONG, FULL, OVER)
    assert [text_of(examples, i) for i in range(4)] == ["do:done$", "tell:a story", "a" * 11 + ":", "b" * 12]
    assert [examples.targets(i).tolist() for i in range(4)] == [[[3, 8]], [[5, 12]], [], []]
    assert examples.num_targets.tolist() == [5, 7, 0, 0]


def test_a_text_of_just_max_length_is_not_cut() -> None:
    examples = encoded(Record.of("do", "", "12345678"), on_truncation="error")
    assert text_of(examples, 0) == "do:12345678$"
    assert (examples.receipt.truncated_examples, examples.receipt.lost_target_tokens) == (0, 0)


def test_the_receipt_counted_by_hand() -> None:
    receipt = encoded(*ALL).receipt
    assert receipt == Receipt(
        source="a.json",
        max_length=12,
        records=7,
        examples=7,
        dropped={},
        truncated_examples=3,
        lost_target_tokens=1 + 3 + 2,
        without_target=2,
        empty_outputs=1,
        duplicates=1,
        tokens=8 + 9 + 8 + 5 + 12 + 12 + 12,
        target_tokens=5 + 3 + 5 + 1 + 7,
        longest_tokens=12,
        changed_by_normalization=1,
        lost_scripts=1,
        first={
            "changed_by_normalization": "record 2 (line 3)",
            "lost_scripts": "record 2 (line 3)",
            "empty_outputs": "record 4 (line 5)",
            "without_target": "record 6 (line 7)",
        },
    )


def test_the_receipt_after_dropping_counted_by_hand() -> None:
    examples = encoded(*ALL, on_empty="drop", on_truncation="drop")
    receipt = examples.receipt
    assert examples.record_indices.tolist() == [0, 1, 2]
    assert receipt.dropped == {"empty output": 1, "longer than max_length": 3}
    assert (receipt.records, receipt.examples) == (7, 3)
    assert (receipt.tokens, receipt.target_tokens, receipt.longest_tokens) == (25, 13, 9)
    assert (receipt.truncated_examples, receipt.lost_target_tokens, receipt.without_target) == (0, 0, 0)
    assert (receipt.empty_outputs, receipt.duplicates) == (1, 1), "counted over the records, dropped or not"


@pytest.mark.parametrize(
    ("on_empty", "on_truncation", "kept"),
    [
        ("keep", "keep", [0, 1, 2, 3, 4, 5, 6]),
        ("drop", "keep", [0, 1, 2, 4, 5, 6]),
        ("keep", "drop", [0, 1, 2, 3]),
    ],
)
def test_each_policy_decides_over_its_own_records(on_empty: Policy, on_truncation: Policy, kept: list[int]) -> None:
    examples = encoded(*ALL, on_empty=on_empty, on_truncation=on_truncation)
    assert examples.record_indices.tolist() == kept
    assert sum(examples.receipt.dropped.values()) == 7 - len(kept)
    assert [text_of(examples, i)[:2] for i in range(len(kept))] == [
        ALL[index].turns[0].instruction[:2] for index in kept
    ]
    assert examples.content_hashes.tolist() == [content_hash(ALL[index]) for index in kept]


def test_a_dropped_record_is_counted_for_one_reason() -> None:
    examples = encoded(PLAIN, Record.of("c" * 20, "", ""), on_empty="drop", on_truncation="drop")
    assert examples.receipt.dropped == {"empty output": 1}


def test_the_policy_error_tells_all_records_at_once() -> None:
    with pytest.raises(InputErrors) as caught:
        encoded(*ALL, on_empty="error", on_truncation="error")
    assert [(problem.where, problem.what, problem.fix) for problem in caught.value.problems] == [
        ("a.json, record 4 (line 5)", "the record has an empty output", "data.on_empty=keep or drop"),
        (
            "a.json, record 5 (line 6)",
            "13 tokens; truncation drops 1 of its target tokens",
            "data.on_truncation=keep or drop",
        ),
        (
            "a.json, record 6 (line 7)",
            "15 tokens; truncation drops 3 of its target tokens",
            "data.on_truncation=keep or drop",
        ),
        (
            "a.json, record 7 (line 8)",
            "23 tokens; truncation drops 2 of its target tokens",
            "data.on_truncation=keep or drop",
        ),
    ]


def test_the_policy_error_lets_good_records_pass() -> None:
    assert len(encoded(PLAIN, GIVEN, on_empty="error", on_truncation="error")) == 2


@pytest.mark.parametrize(("records", "options"), [((FULL, OVER), {}), ((EMPTY,), {"on_empty": "drop"})])
def test_data_without_any_target_is_refused(records: tuple[Record, ...], options: dict[str, Any]) -> None:
    """The sum of the loss is divided by the number of target tokens: NaN in the first step."""
    with pytest.raises(InputError, match="no target token") as caught:
        encoded(*records, **options)
    assert "data.max_length" in caught.value.fix


def test_arrays_and_receipt_count_the_same() -> None:
    examples = encoded(*ALL)
    assert len(examples) == examples.receipt.examples
    assert examples.lengths.tolist() == [8, 9, 8, 5, 12, 12, 12]
    assert len(examples.tokens) == examples.offsets[-1] == examples.receipt.tokens
    assert examples.num_targets.sum() == examples.receipt.target_tokens


def test_nothing_predicts_the_first_token() -> None:
    """A prompt of no token would have made the first token a target without a row to predict it from."""
    characters: Any = Characters()
    bare = Template("bare", "{instruction}{input}", "{instruction}")
    examples = encode(record_set(Record.of("", "", "answer")), characters, bare, EncodingPolicy(12))
    assert (examples.num_targets.tolist(), examples.targets(0).tolist()) == ([6], [[1, 7]])
    assert spans_behind([0, 3], [7, 3])["spans"].tolist() == [[1, 7]]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(50_000, np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_are_as_small_as_the_vocabulary_allows(vocab_size: int, dtype: type) -> None:
    """OPT's 50,272 ids fit 16 bits; a larger vocabulary's would have been cut to other ids."""
    assert encoded(PLAIN, vocab_size=vocab_size).tokens.dtype == dtype


def test_records_keep_their_order_beyond_a_chunk() -> None:
    records = [Record.of(f"{number}", "", "x") for number in range(4_321)]
    done: list[int] = []
    examples = encoded(*records, progress=done.append)
    assert examples.record_indices.tolist() == list(range(4_321))
    assert [text_of(examples, i) for i in (0, 1_999, 2_000, 2_001, 4_320)] == [
        f"{i}:x$" for i in (0, 1_999, 2_000, 2_001, 4_320)
    ]
    assert done == sorted(set(done))
    assert done[-1] == 4_321


def test_unused_columns_go_into_the_receipt() -> None:
    characters: Any = Characters()
    given = record_set(PLAIN, ignored_columns={"id": 1})
    assert encode(given, characters, SHORT, EncodingPolicy(12)).receipt.ignored_columns == {"id": 1}


class TestContentHash:
    """It decides the validation split, so it never changes."""

    def test_pinned(self) -> None:
        """Python's own ``hash`` differs from process to process, and so did the split of each rank."""
        assert (
            content_hash(Record.of("Name a gas.", "", "Helium, H₂O.")) == 15_091_453_434_984_356_715
        )  # b2sum -l 64, little-endian

    def test_equal_records_share_it(self) -> None:
        examples = encoded(PLAIN, GIVEN, PLAIN)
        assert examples.content_hashes[0] == examples.content_hashes[2] != examples.content_hashes[1]

    def test_moving_a_character_to_the_next_field_changes_it(self) -> None:
        assert content_hash(Record.of("ab", "c", "")) != content_hash(Record.of("a", "bc", ""))


class TestWithGalacticasTokenizer:
    def encoded(self, tokenizer: Tokenizer, *records: Record, max_length: int = 400) -> EncodedExamples:
        return encode(record_set(*records), tokenizer, load_template("alpaca"), EncodingPolicy(max_length))

    def targets(self, tokenizer: Tokenizer, examples: EncodedExamples, index: int = 0) -> str:
        return str(tokenizer.hf.decode([i for i in labels_of(examples, index) if i != -100]))

    @pytest.mark.parametrize("answer", ["Helium.", " Helium\n", "\n", "[START_SMILES]CCO[END_SMILES]", "é", ""])
    def test_the_targets_are_the_answer_and_its_end(self, tokenizer: Tokenizer, answer: str) -> None:
        examples = self.encoded(tokenizer, Record.of("Name a gas.", "", answer))
        assert self.targets(tokenizer, examples) == answer + "</s>"
        assert examples.ids(0)[-1] == tokenizer.eos_id

    def test_a_sequence_that_begins_in_the_prompt_and_ends_in_the_answer(self, tokenizer: Tokenizer) -> None:
        examples = self.encoded(tokenizer, Record.of("Go on:", "[START_AMINO]the water", " of the[END_AMINO]"))
        assert self.targets(tokenizer, examples) == " of the[END_AMINO]</s>"
        assert examples.num_targets[0] == len(" of the") + 2

    def test_records_that_normalization_changes_are_counted_once_each(self, tokenizer: Tokenizer) -> None:
        examples = self.encoded(
            tokenizer,
            Record.of("x² and y²", "10⁻³", "H₂O"),
            Record.of("plain", "é 水 α", "text"),
            Record.of("a", "", "H₂O"),
            Record.of("a", "ﬁ", "b"),
        )
        assert examples.receipt.changed_by_normalization == 3

    def test_records_with_a_marker_of_their_own_are_counted(self, tokenizer: Tokenizer) -> None:
        marked = f"the marker {SPLIT_MARKER}"
        records = [Record.of(marked, marked, ""), Record.of("a", "", marked), Record.of("a", "", "b")]
        assert self.encoded(tokenizer, *records).receipt.with_split_marker == 2

    def test_a_marker_means_nothing_to_a_tokenizer_that_keeps_it(self) -> None:
        assert encoded(Record.of(SPLIT_MARKER, "", "x"), max_length=100).receipt.with_split_marker == 0


class TestReceiptRows:
    def rows(self, **counts: Any) -> dict[str, str]:
        return dict(Receipt(source="a.json", max_length=512, **counts).rows())

    def test_every_loss_is_shown_even_where_it_is_none(self) -> None:
        rows = self.rows(records=1_234, examples=1_234, tokens=2_468)
        assert rows["records"] == rows["examples"] == "1,234"
        assert rows["tokens"].startswith("2,468 (mean 2")
        losses = (
            "truncated examples",
            "target tokens lost to truncation",
            "examples without a target",
            "empty outputs",
            "duplicates",
        )
        assert [rows[name].split()[0] for name in losses] == ["0"] * 5
        assert rows["changed by normalization"] == "0"

    def test_every_reason_for_dropping_has_a_line(self) -> None:
        rows = self.rows(dropped={"empty output": 3, "longer than max_length": 4_000})
        assert rows["dropped: empty output"] == "3"
        assert rows["dropped: longer than max_length"] == "4,000"

    def test_ignored_columns_and_lost_markers_have_a_line(self) -> None:
        rows = self.rows(ignored_columns={"id": 7}, with_split_marker=2)
        assert rows["records with a literal split marker"] == "2 (the tokenizer drops it)"
        assert rows["ignored column 'id'"] == "7"

    def test_no_examples_are_no_error(self) -> None:
        assert "mean 0" in self.rows()["tokens"]
