"""A file of answers has the form that its name says: a table is read back as what was written."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from galpaca.errors import InputError
from galpaca.inference.answer_formats import format_of
from galpaca.inference.answers_file import AnswersFile

LINES: list[dict[str, Any]] = [
    {"question": 'Is "5,5" a number;\nor two?', "year": 1905, "tags": ["a", "b"], "index": 0, "answer": "two\tor one"},
    {"question": "Größe", "note": None, "index": 1, "answer": ""},
]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.TSV", "\t")])
def test_a_table_is_read_back(tmp_path: Path, name: str, delimiter: str) -> None:
    """The name was believed by nobody: JSON Lines came into a .csv."""
    path = tmp_path / name
    path.write_text(format_of(path)(LINES), encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter))
    assert [list(row) for row in rows] == [["question", "year", "tags", "index", "answer", "note"]] * 2
    assert rows[0] | {"question": None} == {
        **{"question": None, "year": "1905", "tags": '["a", "b"]', "index": "0", "answer": "two\tor one", "note": ""}
    }
    assert [row["question"] for row in rows] == [line["question"] for line in LINES]
    assert rows[1]["answer"] == rows[1]["year"] == rows[1]["note"] == ""


def test_json(tmp_path: Path) -> None:
    assert json.loads(format_of(Path("a.json"))(LINES)) == LINES
    assert [json.loads(line) for line in format_of(Path("a.jsonl"))(LINES).splitlines()] == LINES


@pytest.mark.parametrize("name", ["answers.xlsx", "answers", "answers.parquet"])
def test_other_names_are_refused_before_a_model_is_loaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        AnswersFile(tmp_path / name, ("index",))
    assert "they can be .csv, .json, .jsonl" in str(caught.value)
    assert f"--out {tmp_path / 'answers.jsonl'}" in str(caught.value)
