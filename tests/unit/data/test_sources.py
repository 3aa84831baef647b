"""Every kind of file gives the same rows, knows its lines, and is refused with all its problems at once."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import REPOSITORY

from galpaca.data.sources.files import FileSource, open_files
from galpaca.data.sources.hub import HubSource
from galpaca.data.sources.table import Table
from galpaca.errors import InputError, InputErrors

RECORDS = [
    {"instruction": "Name a gas.", "input": "", "output": "Helium, He."},
    {"instruction": 'Say "hi",\nthen bye.', "input": "a\tb", "output": "hi\r\nbye"},
    {"instruction": "¿Qué es H₂O?", "input": "水\u2028氷", "output": "x² 🧪"},
]


def file_with(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class Row(NamedTuple):
    line: int | None
    value: Any


def rows_of(folder: Path, name: str, content: str | bytes) -> list[Row]:
    return as_rows(FileSource(file_with(folder, name, content)).table())


def as_rows(table: Table) -> list[Row]:
    return [Row(table.places.line(index), value) for index, value in enumerate(table.values)]


def refusal(folder: Path, name: str, content: str | bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        rows_of(folder, name, content)
    return caught.value


def as_csv(delimiter: str) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(RECORDS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue()


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), buffer)
    return buffer.getvalue()


WRITTEN: dict[str, str | bytes] = {
    "records.json": json.dumps(RECORDS),
    "pretty.JSON": json.dumps(RECORDS, indent=4, ensure_ascii=False),
    "records.jsonl": "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS),
    "records.ndjson": "\n".join(map(json.dumps, RECORDS)) + "\n",
    "records.csv": as_csv(","),
    "records.tsv": as_csv("\t"),
    "marked.csv": b"\xef\xbb\xbf" + as_csv(",").encode(),
    "marked.jsonl": b"\xef\xbb\xbf" + "\n".join(map(json.dumps, RECORDS)).encode(),
    "marked.json": b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
    "records.parquet": as_parquet(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, name: str) -> None:
    assert [row.value for row in rows_of(tmp_path, name, WRITTEN[name])] == RECORDS


class TestLines:
    """The line shown with a record is where an editor finds it."""

    def test_pretty_printed_json(self, tmp_path: Path) -> None:
        text = json.dumps(RECORDS, indent=2)
        begins = [number for number, line in enumerate(text.split("\n"), start=1) if line == "  {"]
        assert [row.line for row in rows_of(tmp_path, "a.json", text)] == begins == [2, 7, 12]

    def test_json_with_several_records_on_a_line(self, tmp_path: Path) -> None:
        assert [row.line for row in rows_of(tmp_path, "a.json", "\n\n[{}, {},\r\n\r\n {}\n,{}]\n")] == [3, 3, 5, 6]

    def test_json_lines_with_blank_ones(self, tmp_path: Path) -> None:
        assert [row.line for row in rows_of(tmp_path, "a.jsonl", '\n{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}')] == [
            2,
            5,
            6,
        ]

    @pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
    def test_only_a_newline_ends_a_line(self, tmp_path: Path, name: str) -> None:
        """``str.splitlines`` also splits at U+2028, U+0085 and form feeds, which stand inside JSON strings."""
        records = [{"a": "x\u2028y\u2029\u0085z"}, {"a": "b"}]
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        text = "[" + ",\n".join(lines) + "]" if name == "a.json" else "\n".join(lines)
        assert rows_of(tmp_path, name, text) == [Row(1, records[0]), Row(2, records[1])]

    def test_csv_with_quoted_newlines_blank_lines_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        content = b'\xef\xbb\xbfinstruction,output\r\n"two\r\nlines",b\r\n\r\nc,"three\n\nlines"\ne,f\n'
        rows = rows_of(tmp_path, "a.csv", content)
        assert [row.line for row in rows] == [2, 5, 8]
        assert [row.value["instruction"] for row in rows] == ["two\r\nlines", "c", "e"]

    def test_parquet_has_none(self, tmp_path: Path) -> None:
        assert {row.line for row in rows_of(tmp_path, "a.parquet", as_parquet())} == {None}


class TestInvalidJson:
    @pytest.mark.parametrize(
        ("text", "line", "column"),
        [
            ('[\n{"a": 1},\n{"a" 2}\n]', 3, 6),
            ('[\n{"a": 1},\n{"a": 2,\n"b" 3}\n]', 4, 5),
            ('[\n{"a": 1},\n]', 3, 1),
            ('[\n{"a": 1}\n{"a": 2}]', 3, 1),
            ('[{"a": 1}]\n\n{"a": 2}', 3, 1),
            ('[\n{"a": "no end}\n]', 2, 15),
            ('[\n{"a": 1}', 2, 9),
        ],
    )
    def test_the_place_of_the_mistake(self, tmp_path: Path, text: str, line: int, column: int) -> None:
        error = refusal(tmp_path, "a.json", text)
        assert error.where == f"{tmp_path / 'a.json'}, line {line}"
        assert "invalid JSON" in error.what
        assert f"column {column}" in error.what

    def test_one_object_a_line_belongs_into_another_file(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, "a.json", '{"a": 1}\n{"a": 2}\n')
        assert "is not a list of records" in error.what
        assert ".jsonl" in error.fix

    def test_one_object_is_no_list(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, "a.json", '{"a": 1}')
        assert "is not a list of records" in error.what
        assert "into a list" in error.fix

    def test_all_bad_lines_at_once(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, "a.jsonl", '{"a": 1}\n{"a"\n\n{"a": 2}\nnonsense\n')
        assert isinstance(error, InputErrors)
        assert [problem.where for problem in error.problems] == [f"{tmp_path / 'a.jsonl'}, line {n}" for n in (2, 5)]

    @pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
    @pytest.mark.parametrize("value", ["1" * 5_000, "[" * 100_000], ids=["huge number", "deep nesting"])
    def test_what_python_cannot_hold_is_reported_with_its_place(self, tmp_path: Path, name: str, value: str) -> None:
        """Python's JSON reader raises a bare ValueError or RecursionError for these, which ended in a traceback."""
        line = '{"a": ' + value + "}"
        assert "line " in refusal(tmp_path, name, f"[{line}]" if name == "a.json" else line).where


class TestInvalidCsv:
    def test_all_rows_of_a_wrong_width_at_once(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, "a.csv", 'a,b\n1,2\n"x\ny",2,3\n4\n5,6\n')
        assert isinstance(error, InputErrors)
        assert [(problem.where[-6:], problem.what[:7]) for problem in error.problems] == [
            ("line 3", "3 cells"),
            ("line 5", "1 cells"),
        ]

    def test_a_quote_that_is_not_doubled(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, "a.csv", 'a,b\n1,2\n3,"say "hi" twice"\n')
        assert "invalid CSV" in error.what
        assert error.where.endswith("line 3")

    def test_a_quote_that_never_closes_is_reported_where_its_record_begins(self, tmp_path: Path) -> None:
        """The end of the file was shown, some ten thousand lines below the quote that has to be closed."""
        error = refusal(tmp_path, "a.csv", 'a,b\n1,2\n3,"open\n' + "more,text\n" * 50)
        assert "invalid CSV" in error.what
        assert "line 3" in error.where

    def test_two_columns_of_one_name_are_refused(self, tmp_path: Path) -> None:
        """The last of them won, and the other's texts were gone without a word."""
        error = refusal(tmp_path, "a.csv", "instruction,output,output\na,b,c\n")
        assert "'output'" in error.what

    @pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"a,b\n", b"a,b"])
    def test_no_record(self, tmp_path: Path, content: bytes) -> None:
        """A file of a byte order mark alone ended in ``generator raised StopIteration``."""
        assert "use a file with at least one record" in refusal(tmp_path, "a.csv", content).fix

    def test_an_answer_may_be_long(self, tmp_path: Path) -> None:
        """Python's CSV reader refuses fields beyond 128 KiB by default."""
        long = "x" * 200_000
        assert rows_of(tmp_path, "a.csv", f"a,b\n1,{long}\n") == [Row(2, {"a": "1", "b": long})]


class TestInvalidUtf8:
    def test_every_bad_byte_with_its_offset_and_line(self, tmp_path: Path) -> None:
        content = b'{"a": "ok"}\n{"a": "caf\xe9"}\n\n{"a": "\xff"}\n'
        error = refusal(tmp_path, "a.jsonl", content)
        assert isinstance(error, InputErrors)
        offsets = [content.index(b"\xe9"), content.index(b"\xff")]
        assert [problem.what for problem in error.problems] == [
            f"byte 0xe9 at byte offset {offsets[0]} is not UTF-8",
            f"byte 0xff at byte offset {offsets[1]} is not UTF-8",
        ]
        assert [problem.where[-6:] for problem in error.problems] == ["line 2", "line 4"]

    def test_the_offset_counts_bytes_and_the_byte_order_mark(self, tmp_path: Path) -> None:
        content = b"\xef\xbb\xbfa,b\n" + "水".encode() + b",\xe9\n"
        assert "offset 11 " in refusal(tmp_path, "a.csv", content).what

    def test_a_character_that_is_cut_at_the_end(self, tmp_path: Path) -> None:
        assert "byte 0xe6 at byte offset 6 " in refusal(tmp_path, "a.csv", b"a,b\n1,\xe6\xb0").what

    def test_a_long_line_is_reported_its_one_bad_byte(self, tmp_path: Path) -> None:
        """Read in pieces, a line has characters that a piece cuts in two."""
        content = b"[" + "水é🧪".encode() * 3_333 + b"\xe9]"
        assert refusal(tmp_path, "a.json", content).what == f"byte 0xe9 at byte offset {len(content) - 2} is not UTF-8"

    @pytest.mark.parametrize(
        ("name", "content", "line_of_the_20th"),
        [("a.csv", b"a,b\n" + b"\xe9,\xe8\n" * 50_000, 11), ("a.json", b"[" + (b"x" * 39 + b"\xe9") * 100_000, 1)],
        ids=["many lines", "one line"],
    )
    def test_a_file_in_another_encoding_is_refused_in_no_time(
        self, tmp_path: Path, name: str, content: bytes, line_of_the_20th: int
    ) -> None:
        """The rest of the file was copied and its lines counted anew for every bad byte: 400 KB took three minutes."""
        started = time.process_time()
        error = refusal(tmp_path, name, content)
        assert time.process_time() - started < 20
        assert isinstance(error, InputErrors)
        assert error.count == 100_000
        assert error.problems[19].where.endswith(f"line {line_of_the_20th}")


class TestFilesThatAreNone:
    def test_missing(self, tmp_path: Path) -> None:
        file_with(tmp_path, "records.json", "[]")
        with pytest.raises(InputError) as caught:
            FileSource(tmp_path / "record.json")
        assert "did you mean records.json" in caught.value.fix
        assert str(tmp_path) in caught.value.why

    def test_in_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            FileSource(tmp_path / "nowhere" / "records.json")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder.json").mkdir()
        with pytest.raises(InputError, match="a folder"):
            FileSource(tmp_path / "folder.json")

    @pytest.mark.parametrize("name", ["records.xml", "records"])
    def test_of_an_unknown_kind(self, tmp_path: Path, name: str) -> None:
        error = refusal(tmp_path, name, "<records/>")
        assert "unsupported file type" in error.what
        assert ".parquet" in error.fix

    @pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet"])
    @pytest.mark.parametrize("content", ["", " \n\n"])
    def test_empty(self, tmp_path: Path, name: str, content: str) -> None:
        assert refusal(tmp_path, name, content).what == "the file is empty"

    @pytest.mark.parametrize(("name", "content"), [("a.json", "[]"), ("a.json", "[\n]\n"), ("a.csv", "a,b\n\n")])
    def test_without_records(self, tmp_path: Path, name: str, content: str) -> None:
        assert refusal(tmp_path, name, content).what == "the file has no records"

    def test_no_parquet(self, tmp_path: Path) -> None:
        assert "not a readable Parquet file" in refusal(tmp_path, "a.parquet", b"PAR1 it is not PAR1").what

    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_a_parquet_file_that_is_cut(self, tmp_path: Path, kept: float) -> None:
        content = as_parquet()
        assert "not a readable" in refusal(tmp_path, "a.parquet", content[: int(kept * len(content))]).what

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
    def test_not_readable(self, tmp_path: Path) -> None:
        path = file_with(tmp_path, "a.json", "[{}]")
        path.chmod(0)
        with pytest.raises(InputError, match="cannot read"):
            FileSource(path)


def test_the_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    first, second = file_with(tmp_path, "a.json", "[{}]"), file_with(tmp_path, "b.json", "[{} ]")
    assert FileSource(first).fingerprint == hashlib.sha256(b"[{}]").hexdigest()
    assert FileSource(first).fingerprint != FileSource(second).fingerprint


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The library answers with what stands under "rows", or raises it."""
        state: dict[str, Any] = {"rows": RECORDS, "requested": None}

        def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
            state["requested"] = name, config, split, revision
            if isinstance(state["rows"], Exception):
                raise state["rows"]
            return datasets.Dataset.from_list(state["rows"]) if state["rows"] else datasets.Dataset.from_dict({"a": []})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return state

    def test_rows_and_what_was_requested(self, hub: dict[str, Any]) -> None:
        source = HubSource("owner/name", "test", "abc", "en")
        assert as_rows(source.table()) == [Row(None, record) for record in RECORDS]
        assert (source.name, hub["requested"]) == ("owner/name", ("owner/name", "en", "test", "abc"))

    def test_the_fingerprint_is_that_of_the_rows(self, hub: dict[str, Any]) -> None:
        """The same name may hold other rows tomorrow; the name alone would find yesterday's encoding."""
        first = HubSource("name")
        assert HubSource("name").fingerprint == first.fingerprint
        hub["rows"] = RECORDS[::-1]
        assert HubSource("name").fingerprint != first.fingerprint

    @pytest.mark.parametrize("error", [ConnectionError("no network\nsecond line"), ValueError(), RuntimeError("x")])
    def test_whatever_the_library_raises_is_reported(self, hub: dict[str, Any], error: Exception) -> None:
        hub["rows"] = error
        with pytest.raises(InputError) as caught:
            HubSource("owner/name", "test")
        assert caught.value.where == "owner/name (split test)"
        assert type(error).__name__ in caught.value.what
        assert "second line" not in str(caught.value)

    def test_no_rows(self, hub: dict[str, Any]) -> None:
        hub["rows"] = []
        with pytest.raises(InputError, match="no records"):
            HubSource("owner/name").table()


class TestConfigurations:
    FOLDER = REPOSITORY / "tests" / "cases" / "files" / "configs"

    def test_one_is_chosen_and_the_error_lists_them(self) -> None:
        """Only the first line of the library's message was shown, and the names stand below."""
        with pytest.raises(InputError) as caught:
            HubSource(str(self.FOLDER))
        assert "several configurations" in caught.value.what
        assert caught.value.fix == "data.hub_config=molecules or proteins"
        with pytest.raises(InputError) as caught:
            HubSource(str(self.FOLDER), config="moleculs")
        assert "no such configuration" in caught.value.what
        assert caught.value.fix == "data.hub_config=molecules or proteins"
        assert len(HubSource(str(self.FOLDER), config="proteins").table().values) == 12


class TestFiles:
    def test_a_list_a_pattern_and_a_folder_are_the_same(self, tmp_path: Path) -> None:
        for number in range(3):
            file_with(tmp_path, f"part{number}.jsonl", f'{{"instruction": "{number}", "output": "x"}}\n' * 2)
        file_with(tmp_path, "README.txt", "no records")
        (tmp_path / ".hidden").mkdir()
        file_with(tmp_path / ".hidden", "part9.jsonl", "{}")
        parts = [str(tmp_path / f"part{number}.jsonl") for number in range(3)]
        sources = [open_files(parts), open_files(f"{tmp_path}/part*.jsonl"), open_files(str(tmp_path))]
        assert len({source.fingerprint for source in sources}) == 1
        for source in sources:
            table = source.table()
            assert [value["instruction"] for value in table.values] == ["0", "0", "1", "1", "2", "2"]
            assert table.where(3) == f"{parts[1]}, record 2 (line 2)"
            assert table.places.short(3) == "file 2, record 2 (line 2)"
        file_with(tmp_path, "part1.jsonl", '{"instruction": "other", "output": "x"}\n')
        assert open_files(str(tmp_path)).fingerprint != sources[0].fingerprint

    def test_problems_of_all_files_at_once(self, tmp_path: Path) -> None:
        paths = [str(file_with(tmp_path, f"{number}.jsonl", "{bad}\n")) for number in range(2)]
        with pytest.raises(InputErrors) as caught:
            open_files([*(str(tmp_path / name) for name in ("missing.jsonl", "lost.jsonl"))])
        assert caught.value.count == 2
        with pytest.raises(InputErrors) as caught:
            open_files(paths).table()
        assert [problem.where for problem in caught.value.problems] == [f"{path}, line 1" for path in paths]

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            ([], "the list of files is empty"),
            (["{folder}/*.csv"], "nothing fits"),
            (["{folder}"], "no files of records"),
        ],
    )
    def test_nothing_is_there(self, given: list[str], what: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=what):
            open_files([one.format(folder=tmp_path) for one in given])

    def test_a_file_named_twice(self, tmp_path: Path) -> None:
        path = str(file_with(tmp_path, "a.jsonl", "{}\n"))
        with pytest.raises(InputError, match="more than once"):
            open_files([path, f"{tmp_path}/*.jsonl"])

    @pytest.mark.parametrize("name", ["book.xlsx", "book.ods"])
    def test_a_workbook_is_refused_with_what_to_do(self, name: str, tmp_path: Path) -> None:
        fix = refusal(tmp_path, name, b"PK").fix
        assert "CSV UTF-8" in fix
        assert "book-sheet.csv" in fix

    def test_a_file_that_changes_under_a_reader(self, tmp_path: Path) -> None:
        source = FileSource(file_with(tmp_path, "a.jsonl", '{"a": 1}\n'))
        file_with(tmp_path, "a.jsonl", '{"a": 2}\n')
        with pytest.raises(InputError, match="changed while it was being read"):
            source.table()


def test_columns_that_nobody_wants_take_no_memory(tmp_path: Path) -> None:
    """A file of 24 MiB with a column of embeddings took 420 MiB."""
    path = tmp_path / "wide.parquet"
    embedding = pyarrow.array(np.random.default_rng(0).random(3_000_000, np.float64)).cast("float64")
    lists = pyarrow.ListArray.from_arrays(pyarrow.array(range(0, 3_000_001, 1_000), "int32"), embedding)
    texts = pyarrow.array([f"text {number}" for number in range(3_000)])
    pyarrow.parquet.write_table(pyarrow.table({"instruction": texts, "output": texts, "embedding": lists}), path)
    assert path.stat().st_size > 20 * 2**20
    script = (
        "import resource, sys; from galpaca.data.reading import load_records; "
        "from galpaca.data.sources.files import open_files; import pyarrow.parquet, numpy; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "records = load_records(open_files(sys.argv[1])); assert len(records) == 3_000; "
        "assert records.ignored_columns == {'embedding': 3_000}; "
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100, "MiB beyond the file itself and what a reader needs"
