"""A step's speed, by numbers that can be worked out by hand."""

import torch

from galpaca.data.collate import StepBatch
from galpaca.data.plan import PlannedStep
from galpaca.estimate.flops import Architecture, step_flops
from galpaca.training.module import StepOutcome
from galpaca.training.step_line import StepSpeed

ARCHITECTURE = Architecture(2, 8, 32, 100)
BATCH = StepBatch(PlannedStep(0, (((0, 1),),), 2, 80, 20, 3_400), [], num_padded_tokens=100)
OUTCOME = StepOutcome(torch.zeros(()), torch.zeros(()), 0.0, begin=10.5, backward_end=13.0, end=14.0)


def test_padding_is_no_token_and_waiting_is_part_of_the_step() -> None:
    figures = StepSpeed(ARCHITECTURE, None).figures(BATCH, 10.0, OUTCOME)
    assert figures == {
        "tokens_per_second": 20.0,
        "target_tokens_per_second": 5.0,
        "non_padding_fraction": 0.8,
        "step_seconds": 4.0,
        "data_seconds": 0.5,
        "forward_backward_seconds": 2.5,
        "optimizer_seconds": 1.0,
    }


def test_mfu_is_the_models_operations_over_the_peak() -> None:
    flops = step_flops(ARCHITECTURE, 80, 3_400)
    assert StepSpeed(ARCHITECTURE, flops).figures(BATCH, 10.0, OUTCOME)["mfu"] == 0.25
