"""Each of 999 real records gives the ids and the ignored tokens that the reference recipe gives."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from galpaca.data.encoded_set import encode
from galpaca.data.examples import EncodedExamples, labels_of
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.reading import load_records
from galpaca.data.sources.files import FileSource
from galpaca.data.tokenizer import load_tokenizer

NUM_RECORDS, NUM_TRUNCATED, MAX_LENGTH = 999, 38, 512


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> list[dict[str, Any]]:
    lines = (shared_data / "alpaca_999_reference.jsonl").read_text().splitlines()
    assert len(lines) == NUM_RECORDS
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> EncodedExamples:
    records = load_records(FileSource(shared_data / "alpaca_999.json"))
    tokenizer = load_tokenizer(str(shared_data / "galactica_tokenizer"))
    return encode(records, tokenizer, load_template("alpaca"), EncodingPolicy(MAX_LENGTH))


def as_reference(index: int, ids: Iterable[int], num_ignored: int) -> dict[str, Any]:
    listed = list(ids)
    sha1 = hashlib.sha1(" ".join(map(str, listed)).encode()).hexdigest()
    return {"index": index, "num_tokens": len(listed), "num_ignored": num_ignored, "ids_sha1": sha1}


def test_all_encodings_equal_the_reference(examples: EncodedExamples, reference: list[dict[str, Any]]) -> None:
    found = [
        as_reference(i, examples.ids(i).tolist(), labels_of(examples, i).count(-100)) for i in range(len(examples))
    ]
    assert [(ours, theirs) for ours, theirs in zip(found, reference, strict=True) if ours != theirs] == []


def test_the_receipt_counts_what_the_reference_cuts(examples: EncodedExamples, reference: list[dict[str, Any]]) -> None:
    receipt = examples.receipt
    assert (receipt.records, receipt.examples, receipt.truncated_examples) == (NUM_RECORDS, NUM_RECORDS, NUM_TRUNCATED)
    assert receipt.tokens == sum(line["num_tokens"] for line in reference)
    assert receipt.target_tokens == sum(line["num_tokens"] - line["num_ignored"] for line in reference)
    assert receipt.longest_tokens == max(line["num_tokens"] for line in reference) == MAX_LENGTH


def test_the_command_prints_the_same(shared_data: Path, reference: list[dict[str, Any]]) -> None:
    """Progress bars and warnings on standard output make it useless to a program."""
    file, tokenizer = shared_data / "alpaca_999.json", shared_data / "galactica_tokenizer"
    command = [sys.executable, "-m", "galpaca", "inspect", str(file), "--tokenizer", str(tokenizer), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [as_reference(line["index"], line["ids"], line["num_ignored"]) for line in lines] == reference
    assert last["receipt"]["records"] == NUM_RECORDS
    assert last["receipt"]["truncated_examples"] == NUM_TRUNCATED
