"""Sequences of science are marked for splitting, one token a character, and nothing else is touched."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.sequences import SEQUENCE_TAGS, SPLIT_MARKER, split_sequences

M = SPLIT_MARKER
KINDS = ("DNA", "AMINO", "SMILES", "I_SMILES")

PIECES = st.sampled_from(
    [*SEQUENCE_TAGS, "ACGT", "C(=O)O", "\n", " ", "é", "🧪", "[", "START_", "text", "### Response:"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
FAST = settings(deadline=None, database=None, derandomize=True, max_examples=300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_marker_before_each_character_and_before_the_end_tag(kind: str) -> None:
    text = f"a [START_{kind}]CCO[END_{kind}] b"
    assert split_sequences(text) == f"a [START_{kind}]{M}C{M}C{M}O{M}[END_{kind}] b"


def test_a_sequence_may_span_lines() -> None:
    """galai's pattern stops at a newline, and the protein after it falls back to word pieces."""
    assert split_sequences("[START_AMINO]M\nK[END_AMINO]") == f"[START_AMINO]{M}M{M}\n{M}K{M}[END_AMINO]"


def test_each_sequence_ends_at_its_first_end_tag() -> None:
    text = "[START_DNA]A[END_DNA] and [START_DNA]C[END_DNA] and [END_DNA]"
    assert split_sequences(text) == f"[START_DNA]{M}A{M}[END_DNA] and [START_DNA]{M}C{M}[END_DNA] and [END_DNA]"


def test_smiles_and_i_smiles_are_reported_apart() -> None:
    text = "[START_I_SMILES]C[END_SMILES]N[END_I_SMILES]"
    inside = "".join(M + character for character in "C[END_SMILES]N")
    assert split_sequences(text) == f"[START_I_SMILES]{inside}{M}[END_I_SMILES]"


@pytest.mark.parametrize(
    "text",
    [
        "no sequence at all",
        "[START_DNA]ACGT, and no end",
        "ACGT[END_DNA]",
        "[START_DNA]ACGT[END_AMINO]",
        "[START_REF]a paper[END_REF] and [START_SUP]2[END_SUP]",
        "[START_RNA]ACGU[END_RNA]",
        "[start_dna]ACGT[end_dna]",
        "[START_DNA]ACGT[end_dna]",
    ],
)
def test_what_is_no_closed_sequence_is_left_alone(text: str) -> None:
    assert split_sequences(text) == text


def test_a_tag_that_is_only_named_swallows_nothing_up_to_a_later_sequence() -> None:
    """A question that names the tag, without closing it, made one sequence of all the text up to the answer's molecule:
    prompt and answer were read letter by letter.
    """
    before, sequence = "What does [START_SMILES] mean?\n\n### Response:It opens ", "[START_SMILES]CO[END_SMILES]"
    assert split_sequences(before + sequence) == before + f"[START_SMILES]{M}C{M}O{M}[END_SMILES]"


def test_an_empty_sequence() -> None:
    assert split_sequences("[START_DNA][END_DNA]") == f"[START_DNA]{M}[END_DNA]"


@FAST
@given(TEXTS)
def test_taking_the_markers_out_gives_the_text_back(text: str) -> None:
    assert split_sequences(text).replace(M, "") == text


@FAST
@given(TEXTS, st.data())
def test_a_marked_prompt_is_the_beginning_of_the_marked_whole(text: str, data: st.DataObject) -> None:
    """A sequence that begins in the prompt and ends in the answer was marked in the whole, and not in the prompt alone:
    the wrong number of tokens was ignored.
    """
    end = data.draw(st.integers(0, len(text)))
    marked = split_sequences(text, end)
    assert marked.replace(M, "") == text[:end]
    assert split_sequences(text).startswith(marked)


@FAST
@given(TEXTS)
def test_only_insides_of_sequences_are_marked(text: str) -> None:
    marked = split_sequences(text)
    outside = marked.split(M)[0] if M in marked else marked
    assert text.startswith(outside)
    assert M not in marked or outside.endswith(tuple(f"[START_{kind}]" for kind in KINDS))
