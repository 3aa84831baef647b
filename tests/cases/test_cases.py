"""Files in the shapes in which people bring their records: each is read, or refused with a fix that works."""

import bz2
import gzip
import json
import lzma
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from galpaca.app.config.composition import compose
from galpaca.app.prepared.rows import open_source
from galpaca.data.encoded_set import encode
from galpaca.data.forms.fields import key_of as hint_key
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.reading import Reading, load_records
from galpaca.data.receipt import Receipt
from galpaca.data.records import RecordSet
from galpaca.data.sources.files import READERS, open_files, suffix_of
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, InputErrors

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Read:
    """A file that is read.

    Attributes:
        num_records: how many records it has.
        counts: of the receipt; those that are not named, of findings, are 0.
        hint: key that the receipt suggests.
    """

    num_records: int
    counts: Mapping[str, int] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True)
class Refused:
    """A file that is refused.

    Attributes:
        what: in the first problem.
        num_problems: how many problems there are.
        num_records: how many records are read once all that the fix says is done; None where a person has to do it.
    """

    what: str
    num_problems: int
    num_records: int | None


CASES: Mapping[str, Read | Refused] = {
    "backslash.json": Refused("Invalid \\escape", 1, None),
    "binary.parquet": Refused("is bytes, not a string", 36, 12),
    "binset": Refused("'output' is bytes", 12, 12),
    "bom.json": Read(12),
    "bom.jsonl": Read(12),
    "bom_middle.jsonl": Refused("invalid JSON", 1, 24),
    "categorical.parquet": Read(12),
    "col_context.jsonl": Read(12, hint="data.fields.input=context"),
    "col_hint.jsonl": Read(12),
    "col_id.jsonl": Read(12),
    "col_input_ids.jsonl": Read(3, hint="data.fields.input=input_ids"),
    "col_inputs.jsonl": Read(3, hint="data.fields.input=inputs"),
    "col_point.jsonl": Read(12),
    "col_print.jsonl": Read(12),
    "col_source.jsonl": Read(12),
    "col_topic.jsonl": Read(12),
    "col_unit.jsonl": Read(12),
    "col_units.jsonl": Read(12),
    "comments.json": Refused("invalid JSON", 1, None),
    "configs": Refused("2 configurations: molecules, proteins", 1, 12),
    "cp1252.csv": Refused("0x92", 24, 3),
    "crlf.csv": Read(2),
    "dolly.jsonl": Refused("no record has the field 'output'", 1, 12),
    "dupkeys.json": Read(2, {"repeated_keys": 1}),
    "eval_null.json": Read(6, {"missing_inputs": 6}),
    "eval_response.json": Refused("no record has the field 'output'", 1, 6),
    "folder_changing": Read(18),
    "gz_named.jsonl": Read(12),
    "index.csv": Read(12),
    "index.parquet": Read(12),
    "latex.json": Read(1),
    "latex_bad_escape.json": Refused("Invalid \\escape", 1, None),
    "latex_silent.json": Read(3, {"control_characters": 3, "broken_latex": 2}),
    "lines_in.json": Refused("not a list of records", 1, 12),
    "list_in.jsonl": Refused("invalid JSON", 1, 12),
    "lone_surrogate.json": Refused("unpaired surrogate", 1, None),
    "messages.jsonl": Read(12),
    "missing_some.json": Read(12, {"missing_inputs": 6}),
    "nan.jsonl": Read(12, {"missing_inputs": 6}),
    "nan_text.csv": Read(12, {"placeholder_inputs": 6}),
    "null.csv": Read(12),
    "null.json": Read(12, {"missing_inputs": 6}),
    "null.parquet": Read(12, {"missing_inputs": 6}),
    "nullset": Read(12, {"missing_inputs": 6}),
    "numbers.json": Refused("'output' is a number", 3, None),
    "numbers.parquet": Refused("'output' is a number", 4, 4),
    "own_records.csv": Refused("no record has the field 'instruction'", 2, 500),
    "pandas_columns.json": Refused("not a list of records", 1, 12),
    "private_project_x.jsonl": Read(12),
    "public.jsonl": Read(12),
    "raw_newline.json": Refused("Invalid control character", 1, 1),
    "records.feather": Read(12),
    "records.jsonl.gz": Read(12),
    "records.jsonl.zst": Read(12),
    "saved_to_disk": Read(12),
    "semicolon.csv": Read(12),
    "separators.jsonl": Read(2, {"control_characters": 2}),
    "shards": Read(12),
    "sharegpt.json": Read(12),
    "single_quotes.jsonl": Refused("invalid JSON", 2, 2),
    "special.json": Read(6, {"special_tokens": 3, "double_ends": 1, "empty_instructions": 1}),
    "surrogate_pair.json": Read(2, {"control_characters": 2}),
    "trailing_comma.json": Refused("invalid JSON", 1, None),
    "trailing_empty_cols.csv": Read(5),
    "tsv_quotes.tsv": Refused("invalid CSV", 1, None),
    "wrapped.json": Refused("not a list of records", 1, 12),
}
FINDINGS = [
    "missing_inputs",
    "placeholder_inputs",
    "special_tokens",
    "double_ends",
    "control_characters",
    "broken_latex",
    "repeated_keys",
    "empty_instructions",
    "empty_outputs",
    "without_target",
    "with_split_marker",
    "open_sequences",
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all files, where the test runs, since fixes write."""
    shutil.copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


def read(path: Any, overrides: list[str] | None = None) -> RecordSet:
    """Reads as training does."""
    config, _ = compose([f"data.path={path}", "run.name=t", "model.tokenizer=t", *(overrides or [])])
    return load_records(open_source(config.data, Path("runs")), config.data.reading)


def receipt_of(records: RecordSet, tokenizer: Tokenizer) -> Receipt:
    return encode(records, tokenizer, load_template("alpaca"), EncodingPolicy(2_048)).receipt


def test_every_file_has_a_verdict() -> None:
    assert {path.name for path in FILES.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, Read)])
def test_a_file_is_read(name: str, tokenizer: Tokenizer) -> None:
    case = CASES[name]
    assert isinstance(case, Read)
    records = read(FILES / name)
    assert len(records) == case.num_records
    assert records.hints == ((case.hint,) if case.hint else ())
    receipt = receipt_of(records, tokenizer)
    counts = {finding: getattr(receipt, finding) for finding in FINDINGS}
    expected = {finding: case.counts.get(finding, 0) for finding in FINDINGS}
    assert counts == expected
    assert all(receipt.first[finding] for finding, count in counts.items() if count)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, Refused)])
def test_a_file_is_refused_with_a_fix_that_works(name: str, folder: Path) -> None:
    case = CASES[name]
    assert isinstance(case, Refused)
    with pytest.raises(InputError) as caught:
        read(folder / name)
    problems = caught.value.problems if isinstance(caught.value, InputErrors) else (caught.value,)
    assert getattr(caught.value, "count", 1) == case.num_problems
    assert case.what in problems[0].what
    assert all(problem.fix for problem in problems)
    if case.num_records is None:
        assert not commands_in(problems[0].fix) or "json.tool" in problems[0].fix
        return
    path, overrides = followed(list(dict.fromkeys(problem.fix for problem in problems)), folder / name)
    assert len(read(path, overrides)) == case.num_records


def commands_in(fix: str) -> list[str]:
    return re.findall(r"`([^`]+)`", fix)


def followed(fixes: list[str], path: Path) -> tuple[Path, list[str]]:
    """Does what fixes say; returns the path to use then, and the keys to type."""
    overrides = []
    for fix in fixes:
        for command in commands_in(fix):
            subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=120)
        for target in re.findall(r"then use ([^\s,;]+)", fix):
            path = Path(target)
        first = fix.partition(", or ")[0].partition(" (or ")[0]
        overrides += re.findall(r"data\.[\w.]+=[^\s,]+", first)
    return path, overrides


@pytest.mark.parametrize("name", ["cp1252.csv", "single_quotes.jsonl", "bom_middle.jsonl", "raw_newline.json"])
def test_a_fix_keeps_every_character(name: str, folder: Path) -> None:
    """LATIN1 in the place of CP1252 made control characters of quotes and dashes, silently."""
    with pytest.raises(InputError) as caught:
        read(folder / name)
    problems = caught.value.problems if isinstance(caught.value, InputErrors) else (caught.value,)
    path, _ = followed([problems[0].fix], folder / name)
    texts = " ".join(text for record in read(path).records for text in record.texts())
    raw = (FILES / name).read_bytes()
    original = raw.decode("cp1252" if name == "cp1252.csv" else "utf-8")
    letters = [one for one in original if not one.isascii() and one != "\ufeff"]
    assert [one for one in texts if not one.isascii()] == letters
    assert not re.search("[\x80-\x9f]", texts)


def test_a_file_of_mixed_encodings_keeps_every_character(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes("instruction,output\n20 °C – ".encode() + b"\x93warm\x94, 5 \xb5m\n")
    path.write_bytes(path.read_bytes().replace(b", 5", b" 5").replace(b" \xe2\x80\x93 ", " – ".encode() + b"x,"))
    with pytest.raises(InputErrors) as caught:
        read(path)
    fixed, _ = followed([caught.value.problems[0].fix], path)
    [record] = read(fixed).records
    assert (record.turns[0].instruction, record.turns[0].output) == ("20 °C – x", "“warm” 5 µm")


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_is_read_with_a_mark_and_named_without(order: str, tmp_path: Path) -> None:
    text = "instruction;output\nWhat is 5 µm?;“thin”\n"
    marked, bare = tmp_path / "marked.csv", tmp_path / "bare.csv"
    marked.write_bytes(("\ufeff" + text).encode(f"utf-16-{order}"))
    bare.write_bytes((text * 1).encode(f"utf-16-{order}"))
    assert read(marked).records[0].turns[0].output == "“thin”"
    with pytest.raises(InputError) as caught:
        read(bare)
    problems = caught.value.problems if isinstance(caught.value, InputErrors) else (caught.value,)
    assert f"UTF-16{order.upper()}" in problems[0].fix


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz", "zst", "utf-16", "utf-16.gz"])
def test_a_command_of_a_fix_reads_packed_and_wide_files(packed: str, tmp_path: Path) -> None:
    """They are read, so what is wrong in them is found; but no other program takes them as they are."""
    suffix = packed.removeprefix("utf-16.")
    content = (
        '{"a": {"instruction": "Name a gas.", "output": "Néon."}, "b": {"instruction": "x", "output": "µ"}}'
    ).encode("utf-16" if packed.startswith("utf-16") else "utf-8-sig")
    path = tmp_path / ("records.json" if packed == "utf-16" else f"records.json.{suffix}")
    path.write_bytes(PACKERS[suffix](content))
    with pytest.raises(InputError) as caught:
        read(f'"{path}"')
    fixed, _ = followed([caught.value.fix], path)
    assert [record.turns[0].output for record in read(f'"{fixed}"').records] == ["Néon.", "µ"]


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "utf-16": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: bytes(pyarrow.compress(content, "zstd", asbytes=True)),
}


@pytest.mark.parametrize(
    ("columns", "typed"),
    [
        ({"Instruction": "x", "Output": "y"}, ["data.fields.instruction=Instruction", "data.fields.output=Output"]),
        (
            {"instruction": "x", 'the "Response" (text), long': "y"},
            ['data.fields.output="the \\"Response\\" (text), long"'],
        ),
    ],
)
def test_a_columns_name_is_quoted_for_shell_and_configuration(
    columns: dict[str, str], typed: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps([columns]), encoding="utf-8")
    if len(typed) == 1:
        key = hint_key("output", 'the "Response" (text), long')
        assert shlex.split(key) == typed
        assert read(path, typed).records[0].turns[0].output == "y"
        return
    with pytest.raises(InputErrors) as caught:
        read(path)
    _, keys = followed([problem.fix for problem in caught.value.problems], path)
    assert keys == typed
    assert read(path, keys).records[0].turns[0].output == "y"


def test_a_separator_line_and_empty_rows_ahead_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes("\ufeffsep=;\r\n;;\r\ninstruction;output\r\nName a gas.;1,5\r\n;x;y\r\n".encode())
    with pytest.raises(InputError, match="3 cells") as caught:
        read(path)
    assert caught.value.where.endswith("line 5")
    path.write_bytes(path.read_bytes().replace(b";x;y\r\n", b""))
    assert read(path).records[0].turns[0].output == "1,5"


def test_a_key_that_is_twice_in_a_message_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "talks.jsonl"
    talk = '{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}'
    path.write_text(talk + "\n", encoding="utf-8")
    assert receipt_of(read(path), tokenizer).repeated_keys == 1


MUTATED = 2_000


def test_nothing_but_an_error_with_a_place_comes_out_of_broken_files(tmp_path: Path) -> None:
    """A Parquet column whose name was no UTF-8 ended in a stack trace."""
    draw = random.Random(0)
    paths = [path for path in sorted(FILES.rglob("*")) if suffix_of(path) in (*READERS, ".parquet", ".feather")]
    refused = 0
    for number in range(MUTATED):
        original = paths[number % len(paths)]
        broken = tmp_path / original.name
        broken.write_bytes(mutated(original.read_bytes(), draw))
        problems = problems_of(broken)
        refused += bool(problems)
        assert all(problem.where and problem.fix for problem in problems), problems
    assert refused > MUTATED / 3


def mutated(content: bytes, draw: random.Random) -> bytes:
    broken = bytearray(content)
    for _ in range(draw.randrange(1, 6)):
        at, how = draw.randrange(len(broken)), draw.randrange(4)
        if how == 0:
            broken[at] = draw.randrange(256)
        elif how == 1:
            del broken[at : at + draw.randrange(1, 40)]
        elif how == 2:
            broken[at:at] = bytes(draw.choices(b'"{}[],:\\\n\r\t;\xef\xbb\xbf\x00', k=3))
        else:
            broken[at : at + 4] = draw.randbytes(4)
        broken = broken or bytearray(b"[")
    return bytes(broken)


def problems_of(path: Path) -> list[InputError]:
    """What is said of a file; nothing where it can be read."""
    try:
        load_records(open_files(str(path)), Reading())
    except InputErrors as error:
        return list(error.problems)
    except InputError as error:
        return [error]
    return []
