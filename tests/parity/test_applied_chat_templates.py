"""``data.template=chat_template`` gives the ids and the targets of ``transformers``' own ``apply_chat_template``."""

import random
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import STYLES, chat_tokenizer

from galpaca.data.encoding import Encoding, RecordEncoder
from galpaca.data.prompts import find_template
from galpaca.data.records import Record, Turn
from galpaca.data.tokenizer import Tokenizer

NUM_RANDOM = 300
WORDS = ["the", " the ", "\n", "\n\n", " ", "he", "é水", "{x}", "%d", "<|im_end|>", "</s>", "<s>", "[/INST]", "'", "\t"]


def random_text(draw: random.Random) -> str:
    return "".join(draw.choices(WORDS, k=draw.randrange(6)))


def random_record(draw: random.Random, with_system: bool) -> Record:
    turns = [Turn(random_text(draw), "", random_text(draw)) for _ in range(draw.randrange(1, 4))]
    turns[0] = turns[0]._replace(input=random_text(draw))
    return Record(tuple(turns), random_text(draw) if with_system else "")


def messages(record: Record) -> list[dict[str, str]]:
    """In code of its own."""
    found = [{"role": "system", "content": record.system}] if record.system else []
    for turn in record.turns:
        question = f"{turn.instruction}\n\n{turn.input}" if turn.instruction and turn.input else turn[0] or turn[1]
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": turn.output}]
    return found


def encoder_of(tokenizer: Tokenizer) -> RecordEncoder:
    return RecordEncoder(tokenizer, find_template("chat_template").bound(tokenizer))


@pytest.fixture(scope="module", params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(style: str, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return chat_tokenizer(tmp_path_factory.mktemp(style), style)


@pytest.fixture(scope="module")
def records(style: str) -> list[Record]:
    draw = random.Random(0)
    return [random_record(draw, STYLES[style][2] and bool(draw.randrange(2))) for _ in range(NUM_RANDOM)]


def applied(encoder: RecordEncoder, tokenizer: Tokenizer, talk: list[dict[str, str]], **how: Any) -> Any:
    template: Any = encoder.template
    return tokenizer.hf.apply_chat_template(talk, chat_template=template.jinja, tokenize=True, return_dict=True, **how)


def test_ids_are_those_of_transformers(style: str, tokenizer: Tokenizer, records: list[Record]) -> None:
    """But for what follows the last end, which nothing predicts."""
    encoder = encoder_of(tokenizer)
    [behind] = {"chatml": ["\n"], "gemma": ["\n"]}.get(style, [""])
    for record, one in zip(records, encoder.encode(records, 10_000), strict=True):
        theirs = applied(encoder, tokenizer, messages(record))["input_ids"]
        assert theirs[: len(one.ids)] == one.ids, record
        assert tokenizer.whole_text(theirs[len(one.ids) :]) == behind
        assert one.ids.count(0) >= (style not in ("chatml", "phi")), "the first token"
        assert one.ids[:2] != [0, 0], "no second first token"


def test_prompts_are_those_of_transformers(tokenizer: Tokenizer, records: list[Record]) -> None:
    """What generation reads is what training saw; where an answer's first character is in a token of its prompt, it is
    said.
    """
    encoder = encoder_of(tokenizer)
    encoded = list(encoder.encode(records, 10_000))
    merged = 0
    for record, one, prompt in zip(records, encoded, encoder.prompt_ids(records), strict=True):
        assert prompt == applied(encoder, tokenizer, messages(record)[:-1], add_generation_prompt=True)["input_ids"]
        assert one.is_merged or one.ids[: len(prompt)] == prompt
        merged += one.is_merged
    assert merged < len(records) / 2


def test_the_end_of_each_answer_carries_loss(style: str, tokenizer: Tokenizer, records: list[Record]) -> None:
    encoder = encoder_of(tokenizer)
    end = tokenizer.hf.convert_tokens_to_ids(STYLES[style][1])
    assert encoder.end_id == end
    for record, one in zip(records, encoder.encode(records, 10_000), strict=True):
        assert len(one.spans) == len(record.turns)
        assert [one.ids[stop - 1] for _, stop in one.spans] == [end] * len(record.turns)


def test_targets_are_transformers_assistant_mask(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path, "chatml")
    encoder = encoder_of(tokenizer)
    draw = random.Random(1)
    records = [random_record(draw, bool(draw.randrange(2))) for _ in range(NUM_RANDOM)]
    compared = 0
    for record, one in zip(records, encoder.encode(records, 10_000), strict=True):
        given = applied(encoder, tokenizer, messages(record), return_assistant_tokens_mask=True)
        if not one.is_merged:
            assert mask(one) == given["assistant_masks"][: len(one.ids)], record
            compared += 1
    assert compared > NUM_RANDOM / 2


def mask(one: Encoding) -> list[int]:
    found = [0] * len(one.ids)
    for start, stop in one.spans:
        found[start:stop] = [1] * (stop - start)
    return found
