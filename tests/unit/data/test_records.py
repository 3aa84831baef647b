"""Records are checked at the door: every problem with its record and line, and how to mend it."""

import json
from pathlib import Path
from typing import Any

import pytest

from galpaca.data.reading import Reading, columns_of, load_records
from galpaca.data.records import Record, RecordSet
from galpaca.data.sources.files import FileSource
from galpaca.errors import InputError, InputErrors


def load(folder: Path, records: list[Any], fields: dict[str, str | None] | None = None, **how: Any) -> RecordSet:
    """Reads records from a JSON file with one record a line, the first on line 2."""
    path = folder / "records.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n", encoding="utf-8")
    return load_records(FileSource(path), Reading(fields or {}, **how))


def refusal(folder: Path, records: list[Any], fields: dict[str, str | None] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        load(folder, records, fields)
    return caught.value


def record(**changes: Any) -> dict[str, Any]:
    return {"instruction": "Name a gas.", "input": "", "output": "Helium.", **changes}


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in record().items() if name != field}


def test_good_records_come_through_as_they_are(tmp_path: Path) -> None:
    given = [record(instruction="  x²\n", input="水"), record(output="")]
    loaded = load(tmp_path, given)
    assert loaded.records == [Record.of("  x²\n", "水", "Helium."), Record.of("Name a gas.", "", "")]
    assert [loaded.places.line(index) for index in (0, 1)] == [2, 3]
    assert len(loaded) == 2
    assert loaded.where(1) == f"{tmp_path / 'records.json'}, record 2 (line 3)"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (3, "a number"),
        (2.5, "a number"),
        (True, "true or false"),
        (["x"], "a list"),
        ({"a": "b"}, "an object"),
    ],
)
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_a_field_that_is_no_text(tmp_path: Path, field: str, value: Any, kind: str) -> None:
    """``str(None)`` as an answer trains a model to say None."""
    if field == "input" and value is None:
        pytest.skip("a policy decides over it")
    error = refusal(tmp_path, [record(), record(**{field: value})])
    assert error.what == f"the field {field!r} is {kind}, not a string"
    assert error.where.endswith("record 2 (line 3)")


@pytest.mark.parametrize("value", ["just text", None, 7, ["a"]])
def test_a_record_that_is_no_object(tmp_path: Path, value: Any) -> None:
    error = refusal(tmp_path, [record(), value])
    assert "expected an object, got" in error.what
    assert '"instruction": ...' in error.fix
    assert error.where.endswith("record 2 (line 3)")


@pytest.mark.parametrize("half", [chr(0xD83E), chr(0xDDEA), chr(0xDDEA) + chr(0xD83E)])
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_half_of_a_surrogate_pair(tmp_path: Path, field: str, half: str) -> None:
    """JSON may escape it, UTF-8 cannot hold it: the tokenizer failed deep inside, without a record's number."""
    error = refusal(tmp_path, [record(), record(**{field: f"x{half}"})])
    assert error.what == f"the field {field!r} has an unpaired surrogate"
    assert error.where.endswith("record 2 (line 3)")


def test_both_halves_of_a_surrogate_pair_are_one_character(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text('[{"instruction": "\\ud83e\\uddea", "input": "", "output": "x"}]')
    assert load_records(FileSource(path)).records[0].turns[0].instruction == "🧪"


def test_a_field_that_one_record_lacks(tmp_path: Path) -> None:
    error = refusal(tmp_path, [record(), without("output"), record()])
    assert error.what == "the field 'output' is missing"
    assert error.where.endswith("record 2 (line 3)")


def test_a_misspelt_field_in_one_record(tmp_path: Path) -> None:
    """Another column for all of them would lose the records that are right."""
    error = refusal(tmp_path, [record(), without("output") | {"ouput": "x"}, record()])
    assert "'ouput'" in error.fix
    assert "data.fields" not in error.fix


def test_a_misspelt_field_in_all_records_is_reported_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, [without("instruction") | {"instructions": "x"}] * 30)
    assert not isinstance(error, InputErrors)
    assert error.what == "no record has the field 'instruction'"
    assert "'instructions'" in error.why
    assert error.fix.startswith("data.fields.instruction=instructions")


def test_a_field_that_no_record_has(tmp_path: Path) -> None:
    error = refusal(tmp_path, [{"first": "x", "second": "y"}])
    assert isinstance(error, InputErrors)
    assert [problem.what for problem in error.problems] == [
        "no record has the field 'instruction'",
        "no record has the field 'output'",
    ]
    assert all("'first', 'second'" in problem.why for problem in error.problems)
    assert "data.fields.output=COLUMN" in str(error)


def test_data_may_have_no_input_at_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, [without("input")] * 2)
    assert loaded.records == [Record.of("Name a gas.", "", "Helium.")] * 2


@pytest.mark.parametrize("name", ["inputs", "context", "inptu"])
def test_a_column_that_may_be_meant_as_the_input_is_a_hint(tmp_path: Path, name: str) -> None:
    """Every record would train without its input, and nothing would say so."""
    loaded = load(tmp_path, [without("input") | {name: "the text that matters"}])
    assert loaded.records == [Record.of("Name a gas.", "", "Helium.")]
    assert loaded.hints == (f"data.fields.input={name}",)


@pytest.mark.parametrize("name", ["hint", "id", "point", "print", "topic", "unit"])
def test_any_other_column_is_none(tmp_path: Path, name: str) -> None:
    """A ``hint`` was taken for a misspelt input, and the advice trained the model on it."""
    assert load(tmp_path, [without("input") | {name: "x"}]).hints == ()


MISSING: list[dict[str, Any]] = [record(), without("input"), record(input=None), record(input=float("nan"))]


def test_an_input_that_some_records_lack_is_empty_and_counted(tmp_path: Path) -> None:
    loaded = load(tmp_path, MISSING)
    assert [one.turns[0].input for one in loaded.records[1:]] == ["", "", ""]
    assert loaded.findings.counts["missing_inputs"] == 3
    assert loaded.findings.first["missing_inputs"] == 1


def test_an_input_that_some_records_lack_is_refused_by_policy(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as caught:
        load(tmp_path, MISSING, on_missing_input="error")
    assert caught.value.count == 3
    assert "data.on_missing_input=empty" in caught.value.problems[0].fix


def test_records_may_be_read_without_their_input(tmp_path: Path) -> None:
    loaded = load(tmp_path, [record(input="x"), without("input")], {"input": "none"})
    assert [one.turns[0].input for one in loaded.records] == ["", ""]
    assert (loaded.ignored_columns, loaded.findings.counts["missing_inputs"]) == ({"input": 1}, 0)


def test_other_columns(tmp_path: Path) -> None:
    given = [{"question": "q", "context": "c", "answer": "a"}]
    fields: dict[str, str | None] = {"instruction": "question", "input": "context", "output": "answer"}
    assert load(tmp_path, given, fields).records == [Record.of("q", "c", "a")]


def test_another_column_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(tmp_path, [{"question": "q", "output": "a"}], {"instruction": "question", "input": "context"})
    assert error.what == "no record has the field 'context'"


def test_a_column_by_default_has_the_fields_name() -> None:
    assert columns_of({"input": "context", "output": None}) == {
        "instruction": "instruction",
        "input": "context",
        "output": "output",
    }


def test_columns_that_nothing_uses_are_counted(tmp_path: Path) -> None:
    loaded = load(tmp_path, [record(id="1", text="x"), record(id="2"), record()])
    assert loaded.ignored_columns == {"id": 2, "text": 1}


def test_a_column_under_another_name_hides_the_fields_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, [record(answer="Neon.")], {"output": "answer"})
    assert loaded.records[0].turns[0].output == "Neon."
    assert loaded.ignored_columns == {"output": 1}


def test_all_problems_at_once_the_first_20_shown_and_all_counted(tmp_path: Path) -> None:
    """Whoever mends a file must not learn its problems one run at a time."""
    given = [record(), record(output=None), "text", without("input"), record(instruction=1, output=2)]
    given += [record(input=number) for number in range(40)]
    error = refusal(tmp_path, given)
    assert isinstance(error, InputErrors)
    assert error.count == 4 + 40
    text = str(error)
    assert "record 2 (line 3): the field 'output' is null" in text
    assert "record 3 (line 4): expected an object, got a string" in text
    assert "record 5 (line 6): the field 'output' is a number" in text
    assert "... and 24 more" in text


def test_lines_of_problems_in_pretty_printed_json(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps([record(), record(output=None), record(input=3)], indent=4))
    with pytest.raises(InputErrors) as caught:
        load_records(FileSource(path))
    assert [problem.where.rpartition(", ")[2] for problem in caught.value.problems] == [
        "record 2 (line 7)",
        "record 3 (line 12)",
    ]


def test_lines_of_problems_in_json_lines_with_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n\n".join(json.dumps(r) for r in (record(), record(output=None), without("output"))))
    with pytest.raises(InputErrors) as caught:
        load_records(FileSource(path))
    assert [problem.where.rpartition(", ")[2] for problem in caught.value.problems] == [
        "record 2 (line 3)",
        "record 3 (line 5)",
    ]


def test_lines_of_csv_records_after_quoted_newlines(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(b'\xef\xbb\xbfinstruction,output\r\n"a\r\nb",c\r\nd,e\r\n')
    loaded = load_records(FileSource(path))
    assert [loaded.where(index).rpartition(", ")[2] for index in (0, 1)] == ["record 1 (line 2)", "record 2 (line 4)"]
    assert loaded.records == [Record.of("a\r\nb", "", "c"), Record.of("d", "", "e")]
