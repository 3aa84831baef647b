"""A step's line, by numbers that can be worked out by hand."""

import math

import pytest
import torch

from galpaca.data.collate import StepBatch
from galpaca.data.plan import PlannedStep
from galpaca.runs.lines import StepLine, figures
from galpaca.training.module import StepOutcome
from galpaca.training.step_line import PendingStep, ReadStep, step_line

OUTCOME = StepOutcome(torch.zeros(()), torch.zeros(()), 1e-5, begin=10.5, backward_end=13.0, end=14.0)


def read(*, num_target_tokens: int = 20, nll_sum: float = 30.0, grad_norm: float = 0.5) -> ReadStep:
    batch = StepBatch(PlannedStep(4, (((0, 1),),), 2, 80, num_target_tokens, 3_400), [], num_padded_tokens=100)
    return ReadStep(PendingStep(batch, OUTCOME, 10.0), nll_sum, grad_norm)


def line(step: ReadStep, *, loss_scale: float | None = None, is_spike: bool = False) -> StepLine:
    shared = {} if loss_scale is None else {"loss_scale": loss_scale}
    return step_line(step, steps_per_epoch=10, speed={"step_seconds": 4.0}, shared=shared, is_spike=is_spike)


def test_a_step_is_counted_from_one_and_its_loss_is_per_target_token() -> None:
    assert line(read()) == StepLine(
        step=5,
        epoch=0.5,
        loss=1.5,
        lr=1e-5,
        grad_norm=0.5,
        examples=2,
        tokens=80,
        target_tokens=20,
        micro_batches=0,
        step_seconds=4.0,
    )


def test_a_step_without_targets_has_no_loss() -> None:
    assert line(read(num_target_tokens=0, nll_sum=0.0)).loss is None


def test_a_spike_is_shown_and_nothing_is_reported_of_other_steps() -> None:
    assert line(read(), is_spike=True).spike is True
    assert "spike" not in figures(line(read()))


@pytest.mark.parametrize("grad_norm", [0.5, math.inf, math.nan])
def test_a_scaler_leaves_overflowed_steps_out(grad_norm: float) -> None:
    """Its scale is the only other trace of such a step, and it may change for another reason."""
    assert line(read(grad_norm=grad_norm), loss_scale=1024.0).skipped is not math.isfinite(grad_norm)
    assert "skipped" not in figures(line(read(grad_norm=grad_norm)))
