from math import inf, nan

from galpaca.training.tracking.rows import Sent, line_number, named, row

STEP = {"step": 3, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0}
VALIDATION = {"step": 3, "val_loss": 2.5}


def test_figures_are_named_by_groups() -> None:
    assert named(STEP) == {"loss/train": 2.0, "numerics/lr": 0.1, "numerics/grad_norm": 1.0}
    assert named({"step": 1, "loss": None, "a_new_one": 7}) == {"other/a_new_one": 7}


def test_a_line_is_the_same_row_whether_it_comes_live_or_from_the_file() -> None:
    """In the file, what is not finite is null."""
    live = row(named({**STEP, "loss": nan, "grad_norm": inf}), 3)
    later = row(named({**STEP, "loss": None, "grad_norm": None}), 3)
    assert live == later == {"step": 3, "line": 12, "numerics/lr": 0.1}


def test_a_validation_follows_its_step() -> None:
    numbers = [line_number(named(line), line["step"]) for line in (STEP, VALIDATION, {**STEP, "step": 4})]
    assert numbers == sorted(numbers) == [12, 14, 16]


def test_a_step_without_targets_is_a_line_and_a_checkpoint_is_none() -> None:
    assert line_number(named({**STEP, "loss": None}), 3) == 12
    assert line_number(named({"step": 3, "checkpoint_bytes": 5}), 3) is None


def test_what_is_missing_is_sent_once() -> None:
    lines = [STEP, VALIDATION, {**STEP, "step": 4}]
    sent = Sent(up_to=12)
    assert [one["line"] for one in sent.missing(lines)] == [14, 16]
    sent.add(14)
    assert [one["line"] for one in sent.missing(lines)] == [16]
    assert sent.last == 14
    assert [one["line"] for one in Sent(others={12, 16}).missing(lines)] == [14]
