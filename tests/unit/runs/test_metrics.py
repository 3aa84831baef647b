"""``metrics.jsonl``: a line for every step, whole or not there, each step once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from galpaca.errors import InputError
from galpaca.runs.lines import StepLine, parse_metrics_line, to_text
from galpaca.runs.metrics import MetricsFile, read_metrics, truncate_metrics

# As every step has them.
STEP: dict[str, Any] = {"step": 1, "loss": 1.0, "grad_norm": 1.0, "examples": 8, "tokens": 80, "target_tokens": 20}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, *lines: dict[str, Any]) -> None:
    file = MetricsFile(path)
    file.write(filter(None, (parse_metrics_line(json.dumps(line)) for line in lines)))
    file.close()


def steps(path: Path) -> list[int]:
    return [line.step for line in read_metrics(path)]


def not_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_what_is_written_is_read(path: Path) -> None:
    lines = [STEP | {"loss": 2.5}, {"step": 1, "val_loss": 2.0, "kind": "é"}, STEP | {"step": 2, "loss": 1.5}]
    write(path, *lines[:2])
    write(path, lines[2])
    assert [json.loads(to_text(line)) for line in read_metrics(path)] == lines
    assert [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] == lines


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_become_null(path: Path, value: float) -> None:
    """Python writes ``NaN``, which no other reader of JSON takes: a diverged run had no readable metrics."""
    file = MetricsFile(path)
    file.write([StepLine(**STEP | {"grad_norm": value, "extra": {"norm": value}})])
    file.close()
    assert json.loads(path.read_text(), parse_constant=not_json) == STEP | {"grad_norm": None, "norm": None}


def test_lines_are_visible_at_once(path: Path) -> None:
    file = MetricsFile(path)
    file.write([StepLine(step=1)])
    assert steps(path) == [1]
    file.close()


def test_lines_are_on_disk_on_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    file = MetricsFile(path)
    file.write([StepLine(step=1)])
    file.sync()
    file.close()
    assert synced == [path.stat().st_ino]


def test_no_file_has_no_lines(path: Path) -> None:
    assert list(read_metrics(path)) == []
    truncate_metrics(path, 0)
    assert not path.exists()


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', '{"step": 3}', "{"])
def test_a_last_line_that_is_cut_is_left_out(path: Path, tail: str) -> None:
    """A reader beside a living run, or after a kill, met half a line."""
    write(path, {"step": 1}, {"step": 2})
    with path.open("a") as file:
        file.write(tail)
    assert steps(path) == [1, 2]


def test_cutting_removes_the_steps_that_are_taken_again(path: Path) -> None:
    """After a resume each step beyond the checkpoint stood in the file twice."""
    write(path, *({"step": step} for step in (1, 2, 2, 3, 4)))
    truncate_metrics(path, 2)
    assert steps(path) == [1, 2, 2]
    write(path, {"step": 3})
    assert steps(path) == [1, 2, 2, 3]


@pytest.mark.parametrize("last_step", [2, 9])
def test_cutting_removes_a_cut_line_too(path: Path, last_step: int) -> None:
    """The resumed run's first line was appended to the half line, and neither could be read."""
    write(path, {"step": 1}, {"step": 2})
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    truncate_metrics(path, last_step)
    write(path, {"step": 3})
    assert steps(path) == [1, 2, 3]


def test_cutting_keeps_every_figure_to_its_last_digit(path: Path) -> None:
    lines = [STEP | {"loss": 0.1 + 0.2, "lr": 2e-05, "fp16": True}]
    write(path, *lines, {"step": 2})
    truncate_metrics(path, 1)
    assert [json.loads(to_text(line)) for line in read_metrics(path)] == lines


def test_cutting_is_no_sign_of_life(path: Path) -> None:
    """A run that was still loading looked as if it had just made a step, and soon as if it hung."""
    write(path, {"step": 1}, {"step": 2})
    os.utime(path, (1000, 1000))
    for last_step in (2, 1):
        truncate_metrics(path, last_step)
        assert path.stat().st_mtime == 1000
    assert steps(path) == [1]


def test_cutting_to_nothing(path: Path) -> None:
    write(path, {"step": 1})
    truncate_metrics(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("damaged", ["{step: 2}", "[2]", '{"loss": 1.0}', '{"step": "2"}', "", "\0\0\0"])
def test_a_damaged_line_is_refused_and_cut(path: Path, damaged: str) -> None:
    """Figures computed from the others would be wrong, and a run that goes on without it must not end in a trace."""
    path.write_text(f'{{"step": 1}}\n{damaged}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
        list(read_metrics(path))
    truncate_metrics(path, 3)
    assert steps(path) == [1, 3]


def test_cutting_counts_lines_and_not_bytes(path: Path) -> None:
    """A bad byte grows when it is read, so that the rest seemed to be as long as the whole."""
    path.write_bytes(b'{"step": 1, "note": "' + b"\xff" * 40 + b'"}\n{"step": 2}\n')
    truncate_metrics(path, 1)
    assert steps(path) == [1]
