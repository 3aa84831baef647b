"""Sequences of science are marked for splitting, one token a character, field by field, and nothing else is touched."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.sequences import SEQUENCE_TAGS, SPLIT_MARKER, mark_sequences, open_sequence

M = SPLIT_MARKER
KINDS = ("DNA", "AMINO", "SMILES", "I_SMILES")

PIECES = st.sampled_from(
    [*SEQUENCE_TAGS, "ACGT", "C(=O)O", "\n", " ", "é", "🧪", "[", "START_", "text", "### Response:", "[START_REF]"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
FAST = settings(deadline=None, database=None, derandomize=True, max_examples=300)


def split(text: str) -> str:
    return "".join(M + character for character in text) + M


@pytest.mark.parametrize("kind", KINDS)
def test_a_marker_before_each_character_and_before_the_end_tag(kind: str) -> None:
    text = f"a [START_{kind}]CCO[END_{kind}] b"
    assert mark_sequences(text) == f"a [START_{kind}]{M}C{M}C{M}O{M}[END_{kind}] b"


def test_a_sequence_may_span_lines() -> None:
    """galai's pattern stops at a newline, and the protein after it falls back to word pieces."""
    assert mark_sequences("[START_AMINO]M\nK[END_AMINO]") == f"[START_AMINO]{M}M{M}\n{M}K{M}[END_AMINO]"


def test_each_sequence_ends_at_its_first_end_tag() -> None:
    text = "[START_DNA]A[END_DNA] and [START_DNA]C[END_DNA] and [END_DNA]"
    assert mark_sequences(text) == f"[START_DNA]{M}A{M}[END_DNA] and [START_DNA]{M}C{M}[END_DNA] and [END_DNA]"


def test_smiles_and_i_smiles_are_told_apart() -> None:
    assert mark_sequences("[START_I_SMILES]C[END_SMILES]N[END_I_SMILES]") == (
        f"[START_I_SMILES]{split('C[END_SMILES]N')}[END_I_SMILES]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "no sequence at all",
        "ACGT[END_DNA]",
        "[START_DNA] is named, [START_REF]a paper[END_REF] is cited",
        "[START_REF]a paper[END_REF] and [START_SUP]2[END_SUP]",
        "[START_RNA]ACGU",
        "[start_dna]ACGT[end_dna]",
        "Write a protein: [START_AMINO]",
    ],
)
def test_what_is_no_sequence_is_left_alone(text: str) -> None:
    assert mark_sequences(text) == text


@pytest.mark.parametrize("end", ["", "[END_AMINO]", "[end_dna]", "\n\n"])
def test_a_sequence_without_an_end_tag_goes_to_the_end_of_its_field(end: str) -> None:
    assert mark_sequences(f"Go on: [START_DNA]AC{end}") == f"Go on: [START_DNA]{split(f'AC{end}')}"


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("Go on: [START_AMINO]MK", "AMINO"),
        ("Write one: [START_I_SMILES]", "I_SMILES"),
        ("[START_DNA]A[END_DNA] and [START_DNA]C", "DNA"),
        ("[START_DNA]A[END_DNA]", None),
        ("[START_DNA] is named, [START_REF]a paper", None),
        ("no sequence", None),
    ],
)
def test_the_sequence_that_is_open_at_the_end_of_a_field(field: str, kind: str | None) -> None:
    assert open_sequence(field) == kind


class TestAnswers:
    def test_one_that_goes_on_with_a_sequence_is_split_up_to_its_end_tag(self) -> None:
        answer = "VL[END_AMINO] is stable, as [START_SMILES]CO[END_SMILES] is."
        expected = f"{split('VL')}[END_AMINO] is stable, as [START_SMILES]{split('CO')}[END_SMILES] is."
        assert mark_sequences(answer, ["AMINO"]) == expected

    @pytest.mark.parametrize(
        "answer",
        [
            "It is a kinase.",  # about the sequence, which it does not go on with
            "VL[END_DNA]",
            "[END_AMINO]",
        ],
    )
    def test_one_that_does_not_is_left_alone(self, answer: str) -> None:
        assert mark_sequences(answer, ["AMINO"]) == answer

    def test_one_with_a_sequence_of_its_own_goes_on_with_none(self) -> None:
        answer = "The whole is [START_AMINO]MKVL[END_AMINO]."
        assert mark_sequences(answer, ["AMINO"]) == f"The whole is [START_AMINO]{split('MKVL')}[END_AMINO]."

    def test_an_end_tag_without_an_open_sequence_ends_nothing(self) -> None:
        assert mark_sequences("VL[END_AMINO]") == mark_sequences("VL[END_AMINO]", [None]) == "VL[END_AMINO]"


def test_a_tag_that_is_only_named_swallows_nothing_up_to_a_later_sequence() -> None:
    """A question that names the tag, without closing it, made one sequence of all the text up to the next molecule."""
    before, sequence = "What does [START_SMILES] mean?\n\nIt opens ", "[START_SMILES]CO[END_SMILES]"
    assert mark_sequences(before + sequence) == before + f"[START_SMILES]{split('CO')}[END_SMILES]"


def test_an_empty_sequence() -> None:
    assert mark_sequences("[START_DNA][END_DNA]") == f"[START_DNA]{M}[END_DNA]"


@FAST
@given(TEXTS, st.lists(st.sampled_from([None, *KINDS]), max_size=2))
def test_taking_the_markers_out_gives_the_text_back(text: str, kinds: list[str | None]) -> None:
    assert mark_sequences(text, kinds).replace(M, "") == text


@FAST
@given(TEXTS)
def test_only_insides_of_sequences_are_marked(text: str) -> None:
    marked = mark_sequences(text)
    outside = marked.split(M)[0] if M in marked else marked
    assert text.startswith(outside)
    assert M not in marked or outside.endswith(tuple(f"[START_{kind}]" for kind in KINDS))
