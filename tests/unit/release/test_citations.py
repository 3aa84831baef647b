"""What a model owes a citation follows from what it was made with."""

import re

import pytest

from galpaca.release.citations import citations


@pytest.mark.parametrize(
    ("base", "dataset", "template", "tuning", "splits", "owed"),
    [
        ("facebook/galactica-6.7b", "tatsu-lab/alpaca", "alpaca", "all parameters", True, ["GALACTICA", "alpaca"]),
        ("facebook/opt-125m", "mine.csv", "science", "all parameters", False, []),
        ("", "own.csv, victor123/evol_instruct_70k", "x", "LoRA of rank 16", True, ["GALACTICA", "wizardlm", "lora"]),
        ("facebook/galactica-30b", "a", "b", "QLoRA of rank 16, NF4", True, ["GALACTICA", "lora", "qlora"]),
    ],
)
def test_what_is_owed(base: str, dataset: str, template: str, tuning: str, splits: bool, owed: list[str]) -> None:
    text = citations(base, dataset, [template], tuning, splits_sequences=splits)
    assert re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE) == [*owed, "galpaca"]
    assert text.count("{") == text.count("}")
