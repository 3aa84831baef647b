"""Reading a run that is alive, was killed, or took steps back."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from galpaca.runs.history import Tail, read_history, read_samples
from galpaca.runs.lines import SampleLine, ValidationLine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def line(step: int, **figures: Any) -> str:
    return json.dumps({"step": step, "loss": 1.0 / step, **figures}) + "\n"


def steps(tail: Tail) -> list[int]:
    return [found.step for found in tail.read().steps]


def test_a_cut_line_counts_once_it_is_whole(path: Path) -> None:
    whole = line(2)
    path.write_text(line(1) + whole[:10])
    tail = Tail(path)
    assert steps(tail) == [1]
    path.write_text(line(1) + whole)
    assert steps(tail) == [1, 2]
    assert tail.history.unreadable == 0


def test_only_what_is_new_is_read(path: Path) -> None:
    path.write_text(line(1) + line(2))
    tail = Tail(path)
    tail.read()
    with path.open("r+") as file:  # as no run does: it shows that the first lines are not read again
        file.write("#" * 10)
        file.seek(0, os.SEEK_END)
        file.write(line(3))
    assert steps(tail) == [1, 2, 3]


def test_steps_that_were_taken_back_are_forgotten(path: Path) -> None:
    """A run that is resumed replaces the file by a shorter one, and soon has as many lines again."""
    path.write_text("".join(line(step) for step in range(1, 6)))
    tail = Tail(path)
    assert steps(tail) == [1, 2, 3, 4, 5]
    other = path.with_name("other")
    other.write_text("".join(line(step, again=True) for step in range(1, 7)))
    other.replace(path)
    assert steps(tail) == [1, 2, 3, 4, 5, 6]
    assert all(found.extra["again"] for found in tail.history.steps)


def test_kinds_of_lines(path: Path) -> None:
    path.write_text(line(1) + '{"step": 1, "val_loss": 2.0}\n' + "no json\n[]\n" + '{"loss": 1}\n' + '{"step": 2}\n')
    history = read_history(path)
    assert [found.step for found in history.steps] == [1]
    assert history.validations == [ValidationLine(step=1, val_loss=2.0)]
    assert history.unreadable == 3


def test_no_file_is_no_history(path: Path) -> None:
    assert read_history(path).last_step == 0


def test_samples_leave_out_what_is_cut_or_no_sample(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    sample: dict[str, Any] = {"step": 3, "category": "a", "instruction": "b", "input": "", "answer": "c"}
    path.write_text(json.dumps(sample) + "\n" + '{"step": "x"}\nnothing\n' + json.dumps(sample))
    assert list(read_samples(path)) == [SampleLine(**sample)]
    assert list(read_samples(tmp_path / "none")) == []


def test_an_answer_may_hold_any_separator(tmp_path: Path) -> None:
    """Python's own idea of lines is wider than JSON's: an answer with U+2028 in it was lost."""
    path = tmp_path / "samples.jsonl"
    sample: dict[str, Any] = {
        "step": 3,
        "category": "a",
        "instruction": "b",
        "input": "",
        "answer": "one\u2028two\x85three",
    }
    path.write_text(json.dumps(sample, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_samples(path)) == [SampleLine(**sample)]
