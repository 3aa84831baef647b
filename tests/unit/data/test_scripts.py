"""Sub- and superscripts in GALACTICA's own notation, and what normalization does to characters."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.encoding import RecordEncoder
from galpaca.data.prompts import load_template
from galpaca.data.records import Record
from galpaca.data.scripts import HARMLESS, LOST_SCRIPT, OTHER_MEANING, SCRIPT_TAGS, changes_of, from_tags, to_tags
from galpaca.data.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("text", "tagged"),
    [
        ("x²⁵", "x[START_SUP]25[END_SUP]"),
        ("H₂O", "H[START_SUB]2[END_SUB]O"),
        ("10⁻³ mol", "10[START_SUP]−3[END_SUP] mol"),
        ("SO₄²⁻", "SO[START_SUB]4[END_SUB][START_SUP]2−[END_SUP]"),
        ("no scripts: ½ ™ 5º", "no scripts: ½ ™ 5º"),
        ("plain", "plain"),
    ],
)
def test_runs_of_scripts_go_between_tags_and_come_back(text: str, tagged: str) -> None:
    assert to_tags(text) == tagged
    assert from_tags(tagged) == text


@pytest.mark.parametrize(
    ("tagged", "text"),
    [
        ("10[START_SUP]-3[END_SUP]", "10⁻³"),
        ("x[START_SUP]2[END_SUP][START_SUB]i[END_SUB]", "x²ᵢ"),
        ("x[START_SUP]2", "x[START_SUP]2"),
        ("[START_SUP]§[END_SUP]", "[START_SUP]§[END_SUP]"),
        ("[START_SUB][END_SUB]", "[START_SUB][END_SUB]"),
        ("[START_REF]a[END_REF]", "[START_REF]a[END_REF]"),
    ],
)
def test_what_has_no_form_in_unicode_stays_between_its_tags(tagged: str, text: str) -> None:
    assert from_tags(tagged) == text


@settings(deadline=None, database=None, derandomize=True, max_examples=300)
@given(st.text(st.sampled_from("x²³⁻₂ᵢ½ℝé水 ab()"), max_size=20))
def test_nothing_is_lost_on_the_way(text: str) -> None:
    assert from_tags(to_tags(text)) == text


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("10⁻³ H₂O", {LOST_SCRIPT}),
        ("½ cup", {OTHER_MEANING}),
        ("① ℝ 𝑥", {OTHER_MEANING}),
        ("ﬁne …", {HARMLESS}),
        ("e\u0301", {HARMLESS}),
        ("x² and ½ and ﬁ", {LOST_SCRIPT, OTHER_MEANING, HARMLESS}),
        ("plain é 水 α", set()),
    ],
)
def test_what_normalization_does(text: str, kinds: set[str]) -> None:
    assert changes_of(text) == kinds
    assert bool(kinds) == (unicodedata.normalize("NFKC", text) != text)


def test_training_and_generation_see_tags_and_a_reader_sees_scripts(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder))
    assert tokenizer.has(SCRIPT_TAGS)
    encoder = RecordEncoder(tokenizer, load_template("alpaca"), "galactica")
    record = Record.of("What is x²?", "H₂O", "10⁻³")
    [one] = encoder.encode([record], 512)
    [prompt] = encoder.prompt_ids([Record.of("What is x²?", "H₂O")])
    assert one.ids[: len(prompt)] == prompt
    assert "[START_SUB]" in tokenizer.pieces(prompt)
    assert encoder.text_of(one.ids[len(prompt) :]) == "10⁻³"
    keeps = RecordEncoder(tokenizer, load_template("alpaca"))
    [lost] = keeps.encode([record], 512)
    assert keeps.text_of(lost.ids[len(prompt) - 8 :]).endswith("10−3")
