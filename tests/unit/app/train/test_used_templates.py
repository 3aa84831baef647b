"""Sources of a mix with templates of their own: what follows for the released model, which has but one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_tokenizers import LLAMA3, save_chat_tokenizer

from galpaca.app.console import make_console
from galpaca.app.train.data import PreparedData, find_data, prepare_data
from galpaca.app.train.recipe_templates import in_short, in_words, used_templates
from galpaca.app.train.release import _example
from galpaca.app.train.samples import _of_records
from galpaca.data.prompt_file import PromptFile
from galpaca.data.spec import DataSpec
from galpaca.errors import InputError

EOT, EOS = 8, 5  # <|eot_id|> and the tokenizer's <|end_of_text|>
CHAT = {"template": "chat_template"}
Prepared = Callable[..., PreparedData]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Data of one source of conversations and one of single questions."""
    tokenizer = save_chat_tokenizer(tmp_path / "tokenizer", LLAMA3, "<|end_of_text|>")
    talk = [{"role": role, "content": f"{role} says"} for role in ("user", "assistant")] * 2
    rows: dict[str, list[dict[str, Any]]] = {
        "talks": [{"messages": talk} for _ in range(4)],
        "singles": [{"instruction": f"the question {number}", "output": "he"} for number in range(4)],
    }
    for name, records in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")

    def make(top: dict[str, Any], talks: dict[str, Any], singles: dict[str, Any]) -> PreparedData:
        given = {"talks": talks, "singles": singles}
        mix = {name: {"path": str(tmp_path / f"{name}.json"), **keys} for name, keys in given.items()}
        spec = DataSpec(mix=mix, max_length=400, **top)
        return prepare_data(spec, find_data(spec, tmp_path), str(tokenizer), make_console(quiet=True))

    return make


def refusal(prepared: Prepared, *given: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        prepared(*given)
    return caught.value


@pytest.mark.parametrize(
    ("top", "talks", "singles", "fix"),
    [
        ({}, CHAT, CHAT, "data.template=chat_template"),
        ({}, CHAT, {}, "data.template=chat_template"),
        (CHAT, {"template": "science"}, {"template": "alpaca"}, "data.template=science"),
        (
            CHAT,
            {"template_date": "2025-01-02"},
            {"template_date": "2025-01-02"},
            "data.template_date=2025-01-02",
        ),
    ],
)
def test_a_released_model_is_prompted_as_it_was_trained(
    prepared: Prepared, top: dict[str, Any], talks: dict[str, Any], singles: dict[str, Any], fix: str
) -> None:
    """A source alone named the chat template, and ``galpaca.json`` said alpaca, with the ends of alpaca."""
    error = refusal(prepared, top, talks, singles)
    assert (error.where, error.fix) == ("data.template", fix)


def test_other_sources_end_answers_too(prepared: Prepared) -> None:
    assert prepared(CHAT, {}, {"template": "alpaca"}).end_ids == (EOT, EOS)
    assert prepared({}, {}, {}).end_ids == (EOS,)


def test_turns_are_those_of_the_released_form(prepared: Prepared) -> None:
    """Conversations of a source in another form were taken for the model's own."""
    assert prepared(CHAT, {}, {"template": "alpaca"}).prompts.keeps_turns
    assert not prepared(CHAT, {"template": "alpaca"}, {}).prompts.keeps_turns
    assert not prepared(CHAT, {"template_date": "2025-01-02"}, {}).prompts.keeps_turns
    assert not prepared({}, {"template": "science"}, {}).prompts.keeps_turns


def test_a_template_without_a_second_turn_keeps_none(prepared: Prepared, tmp_path: Path) -> None:
    """``galpaca.json`` was written so that it could not be read: a finished run was never released."""
    path = tmp_path / "single.yaml"
    path.write_text("with_input: '{instruction} {input}'\nwithout_input: '{instruction}'\n", encoding="utf-8")
    data = prepared({"template": str(path)}, {"template": "science"}, {})
    data.prompts.save(tmp_path)
    assert not PromptFile.read(tmp_path).keeps_turns


def test_a_template_without_a_system_keeps_turns(prepared: Prepared, tmp_path: Path) -> None:
    """That file could not be read either."""
    path = tmp_path / "turns.yaml"
    texts = "with_input: '{instruction} {input}'\nwithout_input: '{instruction}'\nturn: '{instruction}'\n"
    path.write_text(texts, encoding="utf-8")
    data = prepared({"template": str(path)}, {}, {})
    data.prompts.save(tmp_path)
    assert PromptFile.read(tmp_path).keeps_turns


def test_samples_and_the_cards_question_are_of_the_released_form(prepared: Prepared) -> None:
    """Prompts of a chat went through alpaca's texts, and came out whole."""
    data = prepared(CHAT, {"template": "alpaca"}, {})
    asked = [question.instruction for question in _of_records(data, 512).questions]
    assert asked == [f"the question {number}" for number in range(4)]
    question, _ = _example(data)
    assert question == "the question 0"


def test_held_out_records_of_another_form_are_no_samples(prepared: Prepared) -> None:
    data = prepared(CHAT, {"template": "alpaca", "val_fraction": 0.9}, {})
    assert all("the question" in one.instruction for one in _of_records(data, 512).questions)


def test_a_mix_of_texts_is_as_it_was(prepared: Prepared) -> None:
    """Runs with one may be resumed."""
    data = prepared({}, {"template": "science"}, {"template": "science"})
    assert not np.any(data.in_released_form)
    assert len(_of_records(data, 512).questions) == 8
    assert _example(data) == (None, None)


class TestRecipes:
    def settings(self, name: str, **mix: dict[str, str]) -> dict[str, Any]:
        return {"data.template": name, "data.template_date": "2024-07-26", "data.mix": mix}

    def test_one_source(self) -> None:
        assert in_words(self.settings("alpaca")) == "the prompt template alpaca"
        assert in_short(self.settings("alpaca")) == "alpaca"

    def test_all_that_examples_have(self) -> None:
        """The paragraph on methods named the first alone, and the citation of another was not owed."""
        given = self.settings("chat_template", a={"template": "alpaca"}, b={}, c={"template_date": "2025-01-02"})
        assert in_short(given) == "chat_template (2024-07-26), alpaca, chat_template (2025-01-02)"
        assert in_words(given).count("the chat template of the model's tokenizer") == 2
        assert "the prompt template alpaca" in in_words(given)
        assert [one.name for one in used_templates(given)] == ["chat_template", "alpaca", "chat_template"]

    def test_a_date_is_of_a_chat_template(self) -> None:
        assert in_short(self.settings("alpaca", a={"template_date": "2025-01-02"}, b={})) == "alpaca"

    def test_the_released_one_where_no_example_has_it(self) -> None:
        given = self.settings("alpaca", a={"template": "science"})
        assert in_short(given) == "science (the released model is prompted by alpaca)"
