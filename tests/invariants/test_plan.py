"""The step plan: a step is its examples, whatever the ranks, the budget and the machine."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpaca.data.plan import PlannedStep, StepPlan, summarize
from galpaca.errors import InputError

FAST = settings(deadline=None, database=None, derandomize=True, max_examples=150)


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    count = draw(st.integers(1, 80))  # else most lists have a handful
    lengths = draw(st.lists(st.integers(1, 100), min_size=count, max_size=count))
    targets = [draw(st.integers(0, length - 1)) for length in lengths]
    return StepPlan(
        lengths=np.array(lengths, np.int64),
        num_targets=np.array(targets, np.int64),
        examples=draw(st.integers(1, 40)),
        max_tokens=draw(st.integers(max(lengths), 2 * max(lengths))),
        num_ranks=draw(st.integers(1, 9)),
        seed=draw(st.none() | st.integers(0, 2**64 - 1)),
    )


def plan_of(lengths: list[int], **options: int | None) -> StepPlan:
    array = np.array(lengths, np.int64)
    given: dict[str, Any] = {"examples": 6, "max_tokens": 12, "num_ranks": 1, "seed": 0, **options}
    return StepPlan(array, array // 2, **given)


def examples_of(step: PlannedStep) -> list[int]:
    return sorted(chain.from_iterable(chain.from_iterable(step.micro_batches)))


def epoch_of(plan: StepPlan, epoch: int = 0) -> list[PlannedStep]:
    return [plan.step(epoch * plan.steps_per_epoch + within) for within in range(plan.steps_per_epoch)]


def best_fit_decreasing(lengths: list[int], max_tokens: int) -> int:
    """How many bins the textbook's packer opens."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in free if space >= length]
        if fitting:
            free.remove(min(fitting))
        free.append((min(fitting) if fitting else max_tokens) - length)
    return len(free)


def fewest_bins(lengths: list[int], max_tokens: int) -> int:
    """By trying every packing."""

    def place(i: int, loads: list[int]) -> int:
        if i == len(lengths):
            return len(loads)
        options = [place(i + 1, [*loads, lengths[i]])]
        for b, load in enumerate(loads):
            if load + lengths[i] <= max_tokens:
                options.append(place(i + 1, [*loads[:b], load + lengths[i], *loads[b + 1 :]]))
        return min(options)

    return place(0, [])


class TestExamples:
    @FAST
    @given(plans(), st.integers(0, 3))
    def test_an_epoch_has_every_example_once(self, plan: StepPlan, epoch: int) -> None:
        seen = list(chain.from_iterable(map(examples_of, epoch_of(plan, epoch))))
        assert sorted(seen) == list(range(len(plan.lengths)))

    @FAST
    @given(plans(), st.integers(0, 3))
    def test_a_step_has_the_requested_number_and_an_epochs_last_the_rest(self, plan: StepPlan, epoch: int) -> None:
        """Dropping the rest of each epoch would leave up to 127 examples of 128 unseen, silently."""
        counts = [len(examples_of(step)) for step in epoch_of(plan, epoch)]
        full, rest = divmod(len(plan.lengths), plan.examples)
        assert counts == [plan.examples] * full + [rest] * bool(rest)
        assert plan.steps_per_epoch == len(counts)

    @FAST
    @given(plans(), st.integers(1, 70), st.integers(0, 200))
    def test_neither_ranks_nor_the_budget_change_a_steps_examples(
        self, plan: StepPlan, num_ranks: int, more_tokens: int
    ) -> None:
        """A run resumed on another number of GPUs, or packed into larger micro-batches, trains on the same examples."""
        other = replace(plan, num_ranks=num_ranks, max_tokens=plan.max_tokens + more_tokens)
        for index in range(plan.steps_per_epoch + 1):
            here, there = plan.step(index), other.step(index)
            assert examples_of(here) == examples_of(there)
            assert (here.num_examples, here.num_tokens, here.num_target_tokens) == (
                there.num_examples,
                there.num_tokens,
                there.num_target_tokens,
            )

    @FAST
    @given(plans(), st.randoms(use_true_random=False))
    def test_a_step_is_the_same_whatever_came_before(self, plan: StepPlan, random: Random) -> None:
        """Resuming is a number: the plan keeps no state that an earlier step could have changed."""
        indices = list(range(3 * plan.steps_per_epoch))
        fresh = {index: replace(plan).step(index) for index in indices}
        random.shuffle(indices)
        assert {index: plan.step(index) for index in indices} == fresh


class TestFigures:
    @FAST
    @given(plans())
    def test_a_steps_figures_are_those_of_its_examples(self, plan: StepPlan) -> None:
        """The summed loss is divided by the target tokens of the step."""
        for step in epoch_of(plan):
            chosen = examples_of(step)
            assert step.num_examples == len(chosen)
            assert step.num_tokens == sum(int(plan.lengths[i]) for i in chosen)
            assert step.num_target_tokens == sum(int(plan.num_targets[i]) for i in chosen)

    @FAST
    @given(plans())
    def test_an_epochs_target_tokens_are_all_of_them(self, plan: StepPlan) -> None:
        steps = epoch_of(plan)
        assert sum(step.num_target_tokens for step in steps) == plan.num_targets.sum()
        assert sum(step.num_tokens for step in steps) == plan.lengths.sum()

    @FAST
    @given(plans())
    def test_the_summary_counts_what_the_steps_have(self, plan: StepPlan) -> None:
        steps = epoch_of(plan)
        loads = [[[int(plan.lengths[list(m)].sum()) for m in rank] for rank in step.micro_batches] for step in steps]
        imbalance = [
            sum(max(side_by_side) for side_by_side in zip(*ranks, strict=True)) / (sum(map(sum, ranks)) / len(ranks))
            - 1
            for ranks in loads
        ]
        found = summarize(plan, len(steps))
        assert found.pop("mean_imbalance") == pytest.approx(sum(imbalance) / len(steps), abs=1e-5)
        assert found == {
            "steps": len(steps),
            "steps_per_epoch": len(steps),
            "ranks": plan.num_ranks,
            "examples": len(plan.lengths),
            "tokens": plan.lengths.sum(),
            "target_tokens": plan.num_targets.sum(),
            "micro_batches_per_rank": sum(len(step.micro_batches[0]) for step in steps),
            "fullest_micro_batch_tokens": max(chain.from_iterable(chain.from_iterable(loads))),
            "steps_without_target": sum(not step.num_target_tokens for step in steps),
        }


class TestPacking:
    @FAST
    @given(plans())
    def test_no_micro_batch_exceeds_the_budget(self, plan: StepPlan) -> None:
        for step in epoch_of(plan):
            loads = [int(plan.lengths[list(m)].sum()) for rank in step.micro_batches for m in rank]
            assert max(loads) <= plan.max_tokens

    @FAST
    @given(plans())
    def test_all_ranks_have_the_same_number_of_micro_batches(self, plan: StepPlan) -> None:
        """A rank with one fewer leaves the others waiting in a collective until the time-out."""
        for step in epoch_of(plan):
            assert len(step.micro_batches) == plan.num_ranks
            assert len({len(rank) for rank in step.micro_batches}) == 1

    @FAST
    @given(plans())
    def test_no_more_micro_batches_than_a_simple_packer_needs(self, plan: StepPlan) -> None:
        """A number fixed for the run would be that of its worst step: twice the average."""
        for step in epoch_of(plan):
            lengths = [int(plan.lengths[i]) for i in examples_of(step)]
            found = len(step.micro_batches[0])
            assert found >= max(1, math.ceil(sum(lengths) / (plan.num_ranks * plan.max_tokens)))
            assert found <= math.ceil(best_fit_decreasing(lengths, plan.max_tokens) / plan.num_ranks)

    @FAST
    @given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(20, 30), st.integers(1, 3))
    def test_never_more_micro_batches_than_needed(self, lengths: list[int], max_tokens: int, num_ranks: int) -> None:
        """As every possible packing of a few examples says."""
        found = len(plan_of(lengths, examples=8, max_tokens=max_tokens, num_ranks=num_ranks).step(0).micro_batches[0])
        assert found == math.ceil(fewest_bins(lengths, max_tokens) / num_ranks)

    def test_a_packing_that_only_a_search_finds(self) -> None:
        """Best-fit decreasing puts 4 beside 5 and needs a third bin of 10."""
        step = plan_of([5, 4, 3, 2, 2, 2, 2], examples=7, max_tokens=10, seed=None).step(0)
        assert sorted(sorted(m) for m in step.micro_batches[0]) == [[0, 2, 3], [1, 4, 5, 6]]

    def test_a_step_of_a_thousand_examples_that_hardly_fits(self) -> None:
        """A search one call deep for each example ended in a ``RecursionError``."""
        plan = plan_of([*[51] * 999, 2], examples=1_000, max_tokens=100, num_ranks=10)
        assert len(plan.step(0).micro_batches[0]) == 100

    @FAST
    @given(plans())
    def test_micro_batches_that_run_side_by_side_are_the_next_fullest(self, plan: StepPlan) -> None:
        """Ranks wait for each other in each micro-batch: a full one beside an empty one is time lost."""
        for step in epoch_of(plan):
            loads = [[int(plan.lengths[list(m)].sum()) for m in rank] for rank in step.micro_batches]
            rounds = list(zip(*loads, strict=True))
            assert all(min(fuller) >= max(emptier) for fuller, emptier in pairwise(rounds))

    def test_where_spreading_fails_tight_packing_is_tried(self) -> None:
        """Longest first into the emptiest needs three bins of 10 for what fits into two."""
        step = plan_of([6, 5, 4, 3, 2], max_tokens=10, seed=None).step(0)
        assert [sorted(m) for m in step.micro_batches[0]] == [[0, 2], [1, 3, 4]]

    def test_ranks_beyond_the_examples_have_nothing_to_do(self) -> None:
        step = plan_of([3, 3], num_ranks=5).step(0)
        assert sorted(len(rank[0]) for rank in step.micro_batches) == [0, 0, 0, 1, 1]

    def test_an_example_as_long_as_the_budget(self) -> None:
        assert [len(m) for m in plan_of([12, 12, 1], seed=None).step(0).micro_batches[0]] == [1, 1, 1]

    def test_an_example_beyond_the_budget_is_refused_before_the_first_step(self) -> None:
        with pytest.raises(InputError, match="13 tokens") as caught:
            plan_of([12, 13, 1])
        assert caught.value.where == "batch.max_tokens"
        assert "batch.max_tokens=13" in caught.value.fix


class TestShuffle:
    @pytest.mark.parametrize(
        ("seed", "epoch", "order"),
        [
            (0, 0, [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]),
            (0, 1, [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]),
            (1, 0, [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]),
            (1234, 7, [6, 1, 4, 8, 9, 3, 5, 0, 7, 2]),
        ],
    )
    def test_the_same_on_every_machine_and_with_every_numpy(self, seed: int, epoch: int, order: list[int]) -> None:
        """``Generator.permutation`` may change between versions, and two ranks with two versions train on two plans.

        The orders are those of Philox 4x64 with ten rounds, computed from its paper (Salmon et al. 2011) without NumPy.
        """
        assert plan_of([1] * 10, seed=seed).order(epoch).tolist() == order

    def test_the_whole_plan_is_the_same_on_every_machine(self) -> None:
        plan = plan_of([5, 9, 2, 7, 7, 3, 8, 1, 6, 4], num_ranks=2, seed=1234)
        assert [plan.step(index) for index in (0, 1, 2)] == [
            PlannedStep(0, (((1,), (8, 7)), ((0, 9), (3,))), 6, 32, 14, 208),
            PlannedStep(1, (((6, 2),), ((4, 5),)), 4, 20, 9, 126),
            PlannedStep(2, (((6,), (9, 5)), ((4,), (0, 2))), 6, 29, 13, 167),
        ]

    @given(st.integers(20, 200), st.integers(0, 2**64 - 2))
    @FAST
    def test_every_epoch_and_every_seed_has_an_order_of_its_own(self, count: int, seed: int) -> None:
        """Shuffled once, the epochs of a run show the same examples together every time."""
        orders = [plan_of([1] * count, seed=s).order(epoch).tolist() for s in (seed, seed + 1) for epoch in range(3)]
        orders.append(list(range(count)))
        assert len({tuple(order) for order in orders}) == 7

    def test_without_a_seed_the_order_stays(self) -> None:
        plan = plan_of([1] * 10, seed=None)
        assert [plan.step(index).index for index in (0, 1)] == [0, 1]
        assert [examples_of(plan.step(index)) for index in range(4)] == [[*range(6)], [*range(6, 10)]] * 2

    def test_every_example_comes_to_every_place_equally_often(self) -> None:
        plan, epochs, count = plan_of([1] * 5), 5_000, 5
        places = Counter((place, int(i)) for epoch in range(epochs) for place, i in enumerate(plan.order(epoch)))
        five_deviations = 5 * (epochs * (1 / count) * (1 - 1 / count)) ** 0.5
        assert len(places) == count**2
        assert all(abs(found - epochs / count) < five_deviations for found in places.values())


@pytest.mark.parametrize(
    ("num_ranks", "imbalance", "micro_batches"), [(1, 0.0, 1_668), (4, 0.003, 450), (8, 0.01, 407)]
)
def test_ranks_are_evenly_loaded_on_lengths_of_alpacas_kind(
    shared_data: Path, num_ranks: int, imbalance: float, micro_batches: int
) -> None:
    """Shared out in the order of the shuffle, the fullest rank has a fifth more to do than the mean one."""
    columns = np.loadtxt(shared_data / "alpaca_lengths.csv", delimiter=",", skiprows=1, dtype=np.int64).T
    plan = StepPlan(columns[0], columns[1], examples=128, max_tokens=4_096, num_ranks=num_ranks, seed=0)
    summary = summarize(plan, plan.steps_per_epoch)
    assert (summary["steps"], summary["examples"]) == (407, 52_002)
    assert summary["mean_imbalance"] <= imbalance
    assert summary["micro_batches_per_rank"] <= micro_batches
