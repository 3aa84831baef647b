"""The longest steps of a plan: the worst a run will ask of a machine, the same on all ranks."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.longest import longest_steps
from galpaca.data.plan import StepPlan, summarize

FAST = settings(deadline=None, database=None, derandomize=True, max_examples=60)


def plan_of(lengths: list[int], targets: list[int] | None = None, **options: int | None) -> StepPlan:
    given: dict[str, Any] = {"examples": 2, "max_tokens": 20, "num_ranks": 1, "seed": None, **options}
    array = np.array(lengths, np.int64)
    return StepPlan(array, array // 2 if targets is None else np.array(targets, np.int64), **given)


def examples_of(plan: StepPlan, index: int) -> list[int]:
    return sorted(chain.from_iterable(chain.from_iterable(plan.step(index).micro_batches)))


def seconds_of(plan: StepPlan, index: int) -> int:
    """In tokens: ranks wait for each other in each micro-batch."""
    rounds = zip(*plan.step(index).micro_batches, strict=True)
    return sum(max(int(plan.lengths[list(m)].sum()) for m in side_by_side) for side_by_side in rounds)


def test_the_longest_are_taken_and_numbered_from_0() -> None:
    plan = plan_of([1, 1, 9, 9, 2, 2, 8, 8, 3, 3])
    chosen = longest_steps(plan, 5, 3)
    assert [chosen.step(index).index for index in range(3)] == [0, 1, 2]
    # The shortest of them first: the first step has no moments yet, so its memory is not the peak.
    assert [examples_of(chosen, index) for index in range(3)] == [[8, 9], [2, 3], [6, 7]]


def test_the_fullest_micro_batch_is_among_them_though_its_step_is_short() -> None:
    """It decides the peak of memory; without it a rehearsal fits and the run does not."""
    long = [11, 11] * 3  # two micro-batches each
    plan = plan_of([*long, 10, 10], max_tokens=20)
    assert sorted(chain.from_iterable(examples_of(longest_steps(plan, 4, 2), index) for index in range(2))) == [
        0,
        1,
        6,
        7,
    ]


def test_the_micro_batch_with_most_targets_is_among_them() -> None:
    plan = plan_of([9, 9, 8, 8, 7, 7, 6, 6], targets=[1, 1, 1, 1, 1, 1, 5, 5])
    assert {0, 1, 6, 7} == set(chain.from_iterable(examples_of(longest_steps(plan, 4, 2), index) for index in range(2)))


def test_a_step_takes_as_long_as_its_fullest_rank() -> None:
    """The ranks wait for it: ten tokens beside one take longer than six beside six."""
    plan = plan_of([12, 12, 10, 1, 6, 6], num_ranks=2)
    assert set(longest_steps(plan, 3, 2).only or ()) == {0, 1}


def test_all_steps_where_there_are_no_more() -> None:
    plan = plan_of([1, 2, 3, 4, 5])
    assert sorted(longest_steps(plan, 3, 20).only or ()) == [0, 1, 2]


def test_steps_of_later_epochs_count() -> None:
    plan = plan_of([9, 1, 1, 9, 1, 1], seed=3)
    longest = max(range(9), key=lambda index: seconds_of(plan, index))
    chosen = longest_steps(plan, 9, 1)
    assert examples_of(chosen, 0) == examples_of(plan, longest)


@FAST
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=80),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(3, 10),
    st.integers(0, 5),
)
def test_no_step_that_is_left_out_is_longer(
    lengths: list[int], examples: int, num_ranks: int, num_chosen: int, seed: int
) -> None:
    """But for two that memory needs, and the same whoever asks."""
    plan = plan_of(lengths, examples=examples, max_tokens=120, num_ranks=num_ranks, seed=seed)
    num_steps = 2 * plan.steps_per_epoch
    chosen = longest_steps(plan, num_steps, num_chosen)
    assert chosen.only is not None
    assert len(set(chosen.only)) == len(chosen.only) == min(num_steps, num_chosen)
    seconds = sorted((seconds_of(plan, place) for place in chosen.only), reverse=True)
    others = [seconds_of(plan, place) for place in set(range(num_steps)) - set(chosen.only)]
    assert all(other <= seconds[-3] for other in others if len(seconds) >= 3)
    whole = summarize(plan, num_steps)["fullest_micro_batch_tokens"]
    assert summarize(chosen, len(chosen.only))["fullest_micro_batch_tokens"] == whole
    assert longest_steps(plan, num_steps, num_chosen).only == chosen.only


@pytest.mark.parametrize("num_ranks", [1, 4])
def test_sizes_of_padding_stay_those_of_the_whole_run(num_ranks: int) -> None:
    """Else a compiled model would meet other sizes in the rehearsal than in the run."""
    from galpaca.data.sizes import choose_sizes

    plan = plan_of([*range(1, 21)] * 5, examples=10, num_ranks=num_ranks)
    assert choose_sizes(longest_steps(plan, plan.steps_per_epoch, 3)) == choose_sizes(plan)
