"""Lines of the run folder's files: the same text as ever, and a damaged one is none."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from galpaca.runs.lines import (
    Alert,
    CheckpointLine,
    NonFiniteFinding,
    NonFiniteLine,
    OtherLine,
    SampleLine,
    StepLine,
    SystemLine,
    ValidationLine,
    figures,
    parse_line,
    parse_metrics_line,
    to_text,
)

OLD_RUNS = [REPOSITORY / "tests" / "old_runs" / name for name in ("finished", "half")]

STEP: dict[str, Any] = {
    "step": 5,
    "epoch": 0.5,
    "loss": 1.5,
    "lr": 2e-05,
    "grad_norm": 0.25,
    "examples": 8,
    "tokens": 80,
    "target_tokens": 20,
    "micro_batches": 2,
    "tokens_per_second": 160.0,
    "target_tokens_per_second": 40.0,
    "non_padding_fraction": 0.9,
    "step_seconds": 0.5,
    "data_seconds": 0.1,
    "forward_backward_seconds": 0.3,
    "optimizer_seconds": 0.05,
    "mfu": 0.4,
    "peak_memory_bytes": 1024,
    "loss_scale": 65536.0,
    "compiled_graphs": 2,
    "spike": True,
    "skipped": False,
    "non_finite": True,
    "rolled_back_to": 3,
}


def text_of(**content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


@pytest.mark.parametrize("run", OLD_RUNS, ids=lambda run: run.name)
def test_lines_of_an_old_run_are_the_same_bytes_again(run: Path) -> None:
    """A checkpoint holds the checksum of ``metrics.jsonl``."""
    for name, parse in (("metrics.jsonl", parse_metrics_line), ("samples.jsonl", partial(parse_line, SampleLine))):
        for text in (run / name).read_text(encoding="utf-8").splitlines():
            line = parse(text)
            assert line is not None
            assert to_text(line) == text


def test_a_line_of_a_step_has_these_keys_in_this_order() -> None:
    assert to_text(StepLine(**STEP)) == text_of(**STEP)
    assert parse_metrics_line(text_of(**STEP)) == StepLine(**STEP)


def test_a_figure_that_a_step_lacks_is_absent_but_for_loss_and_norm() -> None:
    line = StepLine(step=1)
    counts = {"examples": 0, "tokens": 0, "target_tokens": 0}
    assert to_text(line) == text_of(step=1, loss=None, grad_norm=None, **counts)
    assert parse_metrics_line(to_text(line)) == line


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_loss_that_is_not_finite_is_null(value: str) -> None:
    line = StepLine(step=1, loss=float(value), grad_norm=float(value), lr=float(value))
    assert value not in to_text(line)
    assert parse_metrics_line(to_text(line)) == StepLine(step=1)
    assert to_text(ValidationLine(step=1, val_loss=float(value))) == text_of(step=1, val_loss=None)


def test_figures_of_a_later_version_come_last_and_stay() -> None:
    text = text_of(step=1, loss=1.0, grad_norm=1.0, examples=1, tokens=1, target_tokens=1, share=0.5, deep={"a": None})
    line = parse_metrics_line(text)
    assert isinstance(line, StepLine)
    assert line.extra == {"share": 0.5, "deep": {"a": None}}
    assert to_text(line) == text


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            {"step": 1, "val_loss": 2.0, "val_loss_math": 3.0},
            ValidationLine(step=1, val_loss=2.0, extra={"val_loss_math": 3.0}),
        ),
        ({"step": 1, "val_loss": None}, ValidationLine(step=1)),
        ({"step": 1, "event": "é"}, OtherLine(step=1, extra={"event": "é"})),
    ],
)
def test_other_lines_than_those_of_steps(content: dict[str, Any], line: ValidationLine | OtherLine) -> None:
    assert parse_metrics_line(text_of(**content)) == line
    assert to_text(line) == text_of(**content)


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "{", "[1]", "null", "3", '"step"'),
        *('{"loss": 1.0}', '{"val_loss": 1.0}', "{}"),
        *('{"step": "2"}', '{"step": 1.5}', '{"step": true}', '{"step": null}'),
        *('{"step": 1, "loss": "low"}', '{"step": 1, "val_loss": [1]}', '{"step": 1, "loss": 1.0, "spike": 1}'),
    ],
)
def test_a_damaged_line_is_none(damaged: str) -> None:
    assert parse_metrics_line(damaged) is None
    assert parse_line(SampleLine, damaged) is None


def test_an_answer() -> None:
    text = text_of(step=3, category="", instruction="Was ist H₂O?", input="", answer="one\u2028two")
    line = SampleLine(step=3, instruction="Was ist H₂O?", answer="one\u2028two")
    assert parse_line(SampleLine, text) == line
    assert to_text(line) == text
    assert line.question == ("", "Was ist H₂O?", "")
    assert parse_line(SampleLine, '{"step": 3, "instruction": "q"}') is None, "without an answer"


def test_a_step_that_was_not_finite() -> None:
    found = NonFiniteFinding(rank=1, micro_batch=0, module="layers.3.fc1", examples=(7, 9))
    line = NonFiniteLine(step=4, policy="skip", found=(found,), examples=(2, 7, 9))
    content = {"rank": 1, "micro_batch": 0, "module": "layers.3.fc1", "examples": [7, 9]}
    assert to_text(line) == text_of(step=4, policy="skip", found=[content], examples=[2, 7, 9])


def test_the_machine_at_a_moment() -> None:
    line = SystemLine(time=1.5, step=2, alert=Alert(title="a", text="b"), extra={"gpu.0.power_watts": 300.0})
    text = text_of(time=1.5, step=2, alert={"title": "a", "text": "b"}, **{"gpu.0.power_watts": 300.0})
    assert to_text(line) == text
    assert parse_line(SystemLine, text) == line
    assert parse_line(SystemLine, text[:-1]) is None


def test_figures_are_what_is_known_and_finite_without_the_step() -> None:
    line = StepLine(step=5, loss=float("nan"), grad_norm=1.0, spike=True, extra={"share": 0.5, "none": None})
    counts = {"examples": 0, "tokens": 0, "target_tokens": 0}
    assert figures(line) == {"grad_norm": 1.0, "spike": True, "share": 0.5, **counts}
    cost = CheckpointLine(step=5, checkpoint_bytes=9, checkpoint_stall_seconds=0.1, checkpoint_write_seconds=0.2)
    assert figures(cost) == {
        "checkpoint_bytes": 9,
        "checkpoint_stall_seconds": 0.1,
        "checkpoint_write_seconds": 0.2,
    }


def test_parts_of_a_step_are_known_all_or_none() -> None:
    assert StepLine(**STEP).part_seconds == (0.1, 0.3, 0.05)
    assert StepLine(**{**STEP, "optimizer_seconds": None}).part_seconds is None
