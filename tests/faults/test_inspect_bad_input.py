"""``galpaca inspect`` refuses what ``train.py`` would, and tells it in its own options."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def galpaca(tmp_path: Path) -> Callable[..., str]:
    """Runs ``python -m galpaca``, which must refuse; returns its message."""

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "galpaca", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not done.stdout.strip(), "a refusal goes to stderr alone"
        return done.stderr

    return run


def test_no_command_tells_the_commands(galpaca: Callable[..., str]) -> None:
    message = galpaca()
    for command in ("train", "inspect", "demo"):
        assert command in message


def test_an_unknown_command_tells_the_commands(galpaca: Callable[..., str]) -> None:
    message = galpaca("inspekt")
    for text in ("'inspekt'", "train", "inspect", "demo"):
        assert text in message


def test_no_file_is_reported(galpaca: Callable[..., str], tokenizer_folder: Path) -> None:
    message = galpaca("inspect", "--tokenizer", tokenizer_folder)
    assert "error: the following arguments are required: FILE" in message
    assert "usage: galpaca inspect" in message


def test_no_tokenizer_is_reported(galpaca: Callable[..., str], records_file: Path) -> None:
    assert "error: the following arguments are required: --tokenizer" in galpaca("inspect", records_file)


def test_a_file_that_is_not_there_is_reported(
    galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path
) -> None:
    path = records_file.with_name("recods.json")
    message = galpaca("inspect", path, "--tokenizer", tokenizer_folder)
    assert message.startswith(f"error: {path}: no such file")
    assert f"fix: did you mean {records_file.name}?" in message


def test_every_problem_of_a_bad_file_is_reported(
    galpaca: Callable[..., str], tmp_path: Path, tokenizer_folder: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"instruction": "a", "output": 1}\n{"instruction": null, "output": "b"}\n', encoding="utf-8")
    message = galpaca("inspect", path, "--tokenizer", tokenizer_folder)
    assert message.startswith("error: 2 problems")
    assert f"{path}, record 1 (line 1): the field 'output'" in message
    assert f"{path}, record 2 (line 2): the field 'instruction'" in message
    assert "fix: " in message


@pytest.mark.parametrize("field", ["question=prompt", "instruction", "instruction="])
def test_a_bad_field_is_reported(
    field: str, galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path
) -> None:
    message = galpaca("inspect", records_file, "--tokenizer", tokenizer_folder, "--field", field)
    assert message.startswith(f"error: --field: expected FIELD=COLUMN, got {field!r}")
    assert "instruction or input or output" in message or "--field FIELD=COLUMN" in message


def test_a_column_that_no_record_has_is_reported_with_the_option_of_this_command(
    galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path
) -> None:
    message = galpaca("inspect", records_file, "--tokenizer", tokenizer_folder, "--field", "instruction=question")
    assert message.startswith(f"error: {records_file}: no record has the field 'question'")
    assert "--field instruction=COLUMN" in message


def test_an_unknown_template_is_reported_with_the_option_of_this_command(
    galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path
) -> None:
    message = galpaca("inspect", records_file, "--tokenizer", tokenizer_folder, "--template", "alpacca")
    assert message.startswith("error: --template: unknown template 'alpacca'")
    assert "alpaca, science" in message


def test_a_broken_template_file_is_reported(
    galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("with_input: {instruction\n", encoding="utf-8")
    message = galpaca("inspect", records_file, "--tokenizer", tokenizer_folder, "--template", path)
    assert message.startswith(f"error: {path}")
    assert "invalid YAML" in message


def test_a_tokenizer_that_is_not_there_is_reported_with_the_option_of_this_command(
    galpaca: Callable[..., str], records_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "no" / "such" / "tokenizer"
    message = galpaca("inspect", records_file, "--tokenizer", folder)
    assert message.startswith(f"error: {folder}: ")
    assert "no such folder" in message
    assert "--tokenizer" in message


@pytest.mark.parametrize(("option", "value"), [("--max-length", "1"), ("--max-length", "many"), ("--records", "-1")])
def test_a_number_that_makes_no_sense_is_reported(
    option: str, value: str, galpaca: Callable[..., str], records_file: Path, tokenizer_folder: Path
) -> None:
    message = galpaca("inspect", records_file, "--tokenizer", tokenizer_folder, option, value)
    assert "error: " in message
    assert option in message
    assert value in message
