"""Encodings equal those of an independent reference in plain ``transformers``, on records of the repository."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO
from parity.plain_reference import reference
from parity.test_reference_encoding import as_reference
from transformers import AutoTokenizer

from galpaca.data.encoded_set import encode
from galpaca.data.examples import labels_of
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.reading import load_records
from galpaca.data.sources.files import FileSource
from galpaca.data.tokenizer import load_tokenizer

# Of the reference's lines for the 840 records of the demo at 64 tokens, where 94 are cut; 42 hold a SMILES string.
REFERENCE_SHA1 = "68a027037b759a62caebe11b1b9e397dfcc6c731"


def lines(records: Path, tokenizer: Path, max_length: int) -> list[dict[str, Any]]:
    content = json.loads(records.read_text(encoding="utf-8"))
    return list(reference(content, AutoTokenizer.from_pretrained(tokenizer), max_length))


def test_the_reference_is_what_it_was() -> None:
    found = lines(DEMO / "records.json", DEMO / "tokenizer", 64)
    text = "".join(f"{json.dumps(line)}\n" for line in found)
    assert hashlib.sha1(text.encode()).hexdigest() == REFERENCE_SHA1
    assert sum(line["num_tokens"] == 64 for line in found) == 94


@pytest.mark.parametrize("max_length", [64, 256])
def test_encodings_of_the_demo_equal_the_reference(max_length: int) -> None:
    records = load_records(FileSource(DEMO / "records.json"))
    examples = encode(
        records, load_tokenizer(str(DEMO / "tokenizer")), load_template("alpaca"), EncodingPolicy(max_length)
    )
    found = [
        as_reference(i, examples.ids(i).tolist(), labels_of(examples, i).count(-100)) for i in range(len(examples))
    ]
    assert found == lines(DEMO / "records.json", DEMO / "tokenizer", max_length)
    assert len(found) == 840


def test_both_references_agree_on_999_real_records(shared_data: Path) -> None:
    """So the one above stands for the one that is not part of the repository."""
    found = lines(shared_data / "alpaca_999.json", shared_data / "galactica_tokenizer", 512)
    theirs = (shared_data / "alpaca_999_reference.jsonl").read_text(encoding="utf-8").splitlines()
    assert found == [json.loads(line) for line in theirs]
