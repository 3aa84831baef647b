"""What is sent of a run folder, and with which numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import CheckpointLine, MetricsLine, parse_metrics_line
from galpaca.runs.metrics import truncate_metrics
from galpaca.tracking.rows import METRICS, SAMPLES, SYSTEM, TABLE, Rows, is_line, line_number, named

STEP = {"step": 3, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "examples": 8, "tokens": 80, "target_tokens": 20}
VALIDATION = {"step": 3, "val_loss": 2.5}


def append(path: Path, *lines: dict[str, Any], end: str = "\n") -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, lines)) + end)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path, "run")


def answer(step: int, text: str) -> dict[str, Any]:
    return {"step": step, "instruction": "Name it.", "answer": text}


def parsed(line: dict[str, Any]) -> MetricsLine:
    found = parse_metrics_line(json.dumps(line))
    assert found is not None
    return found


def test_figures_are_named_by_groups() -> None:
    counts = {"data/examples": 8, "data/tokens": 80, "data/target_tokens": 20}
    assert named(parsed(STEP)) == {"loss/train": 2.0, "numerics/lr": 0.1, "numerics/grad_norm": 1.0, **counts}
    assert named(parsed({"step": 1, "val_loss": None, "a_new_one": 7})) == {"other/a_new_one": 7}


def test_a_validation_follows_its_step() -> None:
    """A step without any target has no loss, and a loss that is not finite is null; both are lines."""
    lines = ({**STEP, "loss": None}, {**VALIDATION, "val_loss": None}, {**STEP, "step": 4})
    assert [line_number(parsed(line)) for line in lines] == [12, 14, 16]
    assert all(is_line(named(parsed(line))) for line in (STEP, VALIDATION))
    cost = CheckpointLine(step=3, checkpoint_bytes=5, checkpoint_stall_seconds=0.1, checkpoint_write_seconds=0.2)
    assert not is_line(named(cost))


def test_lines_come_once_as_they_are_written(folder: RunFolder) -> None:
    rows = Rows(folder)
    assert list(rows.new(ended=False)) == []
    append(folder.metrics, STEP, VALIDATION)
    append(folder.metrics, {"step": 4, "lr": 0.1, "loss": 1.0}, end="")
    assert [(row.stream, row.number) for row in rows.new(ended=False)] == [(METRICS, 12), (METRICS, 14)]
    append(folder.metrics)
    assert [(row.number, row.step) for row in rows.new(ended=False)] == [(16, 4)]
    assert list(rows.new(ended=True)) == []


def test_lines_that_are_computed_again_have_their_numbers(folder: RunFolder) -> None:
    rows = Rows(folder)
    append(folder.metrics, STEP, {**STEP, "step": 4})
    assert [row.number for row in rows.new(ended=False)] == [12, 16]
    truncate_metrics(folder.metrics, 3)
    append(folder.metrics, {**STEP, "step": 4}, {**STEP, "step": 5})
    assert [row.number for row in rows.new(ended=False)] == [12, 16, 20]


def test_a_table_waits_for_all_answers_of_its_step(folder: RunFolder) -> None:
    """A reader may see the first of several answers before the others are written."""
    rows = Rows(folder)
    append(folder.samples, answer(0, "a"))
    append(folder.metrics, {**STEP, "step": 1})
    tables = [row for row in rows.new(ended=False) if row.stream == SAMPLES]
    assert [(row.number, row.values[TABLE]) for row in tables] == [(0, [["Name it.", "", "a", ""]])]
    append(folder.samples, answer(1, "b"))
    assert [row.number for row in rows.new(ended=False)] == [0]
    append(folder.samples, answer(1, "c"))
    last = list(rows.new(ended=True))[-1]
    assert (last.number, len(last.values[TABLE])) == (1, 2)
    assert list(rows.new(ended=True)) == [], "the file has not changed"


def test_lines_of_the_machine_are_numbered_by_their_place(folder: RunFolder) -> None:
    rows = Rows(folder)
    append(folder.system, {"time": 1.0, "step": 2, "host_load": 0.5})
    with folder.system.open("a", encoding="utf-8") as file:
        file.write('{"time": 2.0, "st\n')  # a killed run's
    append(folder.system, {"time": 3.0, "step": 2, "checkpoint/bytes": 7})
    found = [(row.stream, row.number, row.values) for row in rows.new(ended=False)]
    assert found == [(SYSTEM, 0, {"system/host_load": 0.5}), (SYSTEM, 2, {"checkpoint/bytes": 7})]
    append(folder.system, {"time": 4.0, "step": 3, "host_load": 0.1})
    assert [row.number for row in rows.new(ended=False)] == [3]
