"""Sizes for a compiled model: few, within the budget, and at little cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.plan import StepPlan
from galpaca.data.sizes import choose_sizes


def plan_of(lengths: np.ndarray, **options: int) -> StepPlan:
    given: dict[str, Any] = {"examples": 128, "max_tokens": 4_096, "num_ranks": 1, "seed": 0, **options}
    return StepPlan(lengths, lengths // 2, **given)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(300, 900),
    st.integers(1, 4),
)
def test_every_micro_batch_fits_its_sizes(lengths: list[int], examples: int, max_tokens: int, num_ranks: int) -> None:
    plan = plan_of(np.array(lengths), examples=examples, max_tokens=max_tokens, num_ranks=num_ranks)
    sizes = choose_sizes(plan)
    for index in range(plan.steps_per_epoch):
        for micro_batch in (m for rank in plan.step(index).micro_batches for m in rank):
            num_tokens = max(1, sum(lengths[i] for i in micro_batch))
            padded = sizes.padded(num_tokens)
            assert num_tokens <= padded <= max_tokens
            assert padded - num_tokens < sizes.multiple_tokens <= sizes.longest_tokens
            assert padded % sizes.multiple_tokens == 0 or padded == max_tokens
            assert len(micro_batch) + 1 <= sizes.num_examples
            assert max((lengths[i] for i in micro_batch), default=0) <= sizes.longest_tokens


@pytest.mark.parametrize(
    ("num_ranks", "examples", "max_tokens"), [(1, 128, 4_096), (1, 128, 8_192), (4, 128, 4_096), (16, 1_024, 3_072)]
)
def test_99_percent_are_real_tokens(shared_data: Path, num_ranks: int, examples: int, max_tokens: int) -> None:
    lengths = np.loadtxt(shared_data / "alpaca_lengths.csv", delimiter=",", skiprows=1, dtype=np.int64).T[0]
    plan = plan_of(lengths, num_ranks=num_ranks, examples=examples, max_tokens=max_tokens)
    sizes = choose_sizes(plan)
    steps = [plan.step(index) for index in range(plan.steps_per_epoch)]
    padded = sum(
        sizes.padded(int(lengths[list(m)].sum())) for step in steps for rank in step.micro_batches for m in rank
    )
    assert lengths.sum() / padded >= 0.99
