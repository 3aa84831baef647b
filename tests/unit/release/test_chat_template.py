"""The released chat template gives the encoder's own ids, over random conversations."""

import random
from pathlib import Path
from typing import Any

import jinja2
import pytest
from unit.data.test_record_encoding import random_text

from galpaca.data.encoding import RecordEncoder
from galpaca.data.prompt_file import PromptFile
from galpaca.data.prompts import Template, load_template
from galpaca.data.records import Record, Turn
from galpaca.data.scripts import Scripts
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.model.families.opt import OPT
from galpaca.release.base import Base
from galpaca.release.chat_template import chat_template

QUOTES = Template(
    "quotes",
    '"{instruction}" \\n {{% {input} %}} {{{{ x }}}}\n',
    "{instruction}\t'é水🧪'\n",
    turn="\n{instruction}?",
    system="<<{system}>>",
)


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


def messages_of(record: Record) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": record.system}] if record.system else []
    for turn in record.turns:
        messages.append({"role": "user", "content": turn.instruction, "input": turn.input})
        messages.append({"role": "assistant", "content": turn.output})
    return messages


def random_talk(draw: random.Random, num_turns: int) -> Record:
    turns = [Turn(random_text(draw), random_text(draw) if not i else "", random_text(draw)) for i in range(num_turns)]
    return Record(tuple(turns), random_text(draw) if draw.random() < 0.3 else "")


@pytest.mark.parametrize("scripts", ["keep", "galactica"])
@pytest.mark.parametrize("template", ["alpaca", "science", "quotes"])
def test_it_gives_the_encoders_ids(template: str, scripts: Scripts, tokenizer: Tokenizer) -> None:
    chosen = QUOTES if template == "quotes" else load_template(template)
    encoder = RecordEncoder(tokenizer, chosen, scripts)
    tokenizer.hf.chat_template = chat_template(PromptFile(chosen, True, scripts, keeps_turns=True), tokenizer)
    draw = random.Random(f"{template} {scripts}")
    for number in range(400):
        record = random_talk(draw, 1 + number % 3)
        messages = messages_of(record)
        [whole] = encoder.encode([record], 100_000)
        assert ids_of(tokenizer, messages) == whole.ids, record
        [prompt] = encoder.prompt_ids(
            [record._replace(turns=(*record.turns[:-1], record.turns[-1]._replace(output="")))]
        )
        assert ids_of(tokenizer, messages[:-1], add_generation_prompt=True) == prompt, record


def ids_of(tokenizer: Tokenizer, messages: list[dict[str, str]], **how: Any) -> list[int]:
    found = tokenizer.hf.apply_chat_template(messages, return_dict=True, **how)
    return list(found["input_ids"])


def test_a_message_needs_no_input(tokenizer: Tokenizer) -> None:
    template = load_template("alpaca")
    tokenizer.hf.chat_template = chat_template(PromptFile(template, True), tokenizer)
    text = tokenizer.hf.apply_chat_template([{"role": "user", "content": "Name a gas."}], tokenize=False)
    assert text == template.prompt("Name a gas.")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["user", "assistant", "user"], "single questions"),
        (["system", "user"], "system messages"),
        (["user", "user"], "in turns"),
        (["assistant"], "in turns"),
        (["user", "tool"], "in turns"),
    ],
)
def test_what_the_model_was_not_trained_on_is_refused(messages: list[str], reason: str, tokenizer: Tokenizer) -> None:
    tokenizer.hf.chat_template = chat_template(PromptFile(load_template("alpaca"), True), tokenizer)
    with pytest.raises(jinja2.TemplateError, match=reason):
        tokenizer.hf.apply_chat_template([{"role": role, "content": "x"} for role in messages], tokenize=False)


def test_a_saved_folder_has_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, OPTConfig

    prompts = PromptFile(load_template("alpaca"), True, "keep", keeps_turns=True)
    Base(OPTConfig(), OPT, tokenizer, prompts).save(tmp_path)
    assert PromptFile.read(tmp_path) == prompts
    saved = AutoTokenizer.from_pretrained(tmp_path)
    talk = Record((Turn("Complete [START_AMINO]MK", "", "VL[END_AMINO]"), Turn("Why?", "", "Because.")), "Be brief.")
    [whole] = RecordEncoder(tokenizer, prompts.template.bound(tokenizer)).encode([talk], 512)
    found: Any = saved.apply_chat_template(messages_of(talk), return_dict=True)
    assert list(found["input_ids"]) == whole.ids
