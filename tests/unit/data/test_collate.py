"""Packed micro-batches: every boundary explicit, every target behind the row that predicts it."""

import dataclasses

import numpy as np
import pytest
import torch

from galpaca.data.collate import MicroBatch, StepBatch, StepDataset, collate
from galpaca.data.encoding import EncodedExamples
from galpaca.data.plan import StepPlan
from galpaca.data.receipt import Receipt

PAD = 1
TENSORS = ("input_ids", "position_ids", "cu_seqlens", "target_rows", "target_ids")


def examples_of(*given: tuple[list[int], int]) -> EncodedExamples:
    """Examples from their ids and the number of ignored ones."""
    count = len(given)
    return EncodedExamples(
        tokens=np.concatenate([np.array(ids, np.uint16) for ids, _ in given]),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in given)], dtype=np.int64),
        num_ignored=np.array([ignored for _, ignored in given], np.int32),
        content_hashes=np.arange(count, dtype=np.uint64),
        record_indices=np.arange(count, dtype=np.int32),
        receipt=Receipt(source="a.json", max_length=512),
    )


def many_examples(count: int, seed: int = 0) -> EncodedExamples:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 30, count)
    return examples_of(
        *((draw.integers(4, 60_000, length).tolist(), int(draw.integers(0, length + 1))) for length in lengths)
    )


EXAMPLES = examples_of(([10, 11, 12, 13], 2), ([20, 21], 2), ([30], 1), ([40, 41, 42], 0), ([50_000, 60_000], 1))


def test_examples_stand_end_to_end_and_positions_begin_anew() -> None:
    batch = collate(EXAMPLES, [0, 3, 1], PAD)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 40, 41, 42, 20, 21]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert batch.cu_seqlens.tolist() == [0, 4, 7, 9]
    assert batch.lengths == (4, 3, 2)


def test_a_target_stands_behind_the_row_that_predicts_it() -> None:
    batch = collate(EXAMPLES, [0, 3, 1], PAD)
    assert batch.target_rows.tolist() == [1, 2, 4, 5]
    assert batch.target_ids.tolist() == [12, 13, 41, 42]


def test_no_row_predicts_the_first_token_of_the_next_example() -> None:
    """Shifting the labels of the whole row by one trains the last token of each example to predict the next one."""
    examples = many_examples(50)
    batch = collate(examples, range(50), PAD)
    firsts, lasts = set(batch.cu_seqlens[:-1].tolist()), {end - 1 for end in batch.cu_seqlens[1:].tolist()}
    assert not firsts & set((batch.target_rows + 1).tolist())
    assert not lasts & set(batch.target_rows.tolist())


def test_packed_is_the_same_as_alone() -> None:
    examples = many_examples(40)
    together = collate(examples, range(40), PAD)
    alone = [collate(examples, [i], PAD) for i in range(40)]
    starts = together.cu_seqlens[:-1].tolist()
    assert torch.equal(together.input_ids, torch.cat([one.input_ids for one in alone], dim=1))
    assert torch.equal(together.position_ids, torch.cat([one.position_ids for one in alone], dim=1))
    assert torch.equal(together.target_ids, torch.cat([one.target_ids for one in alone]))
    rows = [one.target_rows + start for one, start in zip(alone, starts, strict=True)]
    assert torch.equal(together.target_rows, torch.cat(rows))


@pytest.mark.parametrize("seed", range(5))
def test_as_many_targets_as_the_plan_counts(seed: int) -> None:
    """The loss is divided by the plan's number of targets; one that differs from the sum's is a wrong learning rate."""
    examples = many_examples(40, seed)
    for index in range(40):
        batch = collate(examples, [index], PAD)
        assert len(batch.target_ids) == len(batch.target_rows) == examples.num_targets[index]
    assert len(collate(examples, range(40), PAD).target_ids) == examples.num_targets.sum()


@pytest.mark.parametrize("index", [1, 2])
def test_an_example_without_a_target_still_has_its_tokens(index: int) -> None:
    batch = collate(EXAMPLES, [index], PAD)
    assert batch.input_ids.tolist() == [EXAMPLES.ids(index).tolist()]
    assert batch.target_rows.shape == batch.target_ids.shape == (0,)


def test_no_examples_are_one_token_without_a_target() -> None:
    """A rank with nothing to do still has to take part in the others' collectives."""
    batch = collate(EXAMPLES, [], PAD)
    assert batch.input_ids.tolist() == [[PAD]]
    assert batch.position_ids.tolist() == [[0]]
    assert (batch.cu_seqlens.tolist(), batch.lengths) == ([0, 1], (1,))
    assert batch.target_rows.shape == batch.target_ids.shape == (0,)


@pytest.mark.parametrize("indices", [[], [2], [0, 4]])
def test_types(indices: list[int]) -> None:
    """16-bit ids of the cache: an embedding refuses them, and those above 32,767 turn negative as int16."""
    batch = collate(EXAMPLES, indices, PAD)
    assert {name: getattr(batch, name).dtype for name in TENSORS} == {
        name: torch.int32 if name == "cu_seqlens" else torch.int64 for name in TENSORS
    }
    assert batch.input_ids.shape == batch.position_ids.shape == (1, int(batch.cu_seqlens[-1]))


def test_large_ids_come_through() -> None:
    assert collate(EXAMPLES, [4], PAD).input_ids.tolist() == [[50_000, 60_000]]


def test_moving_to_a_device_keeps_everything() -> None:
    step = StepBatch(3, [collate(EXAMPLES, [0, 3], PAD)], 7, 8, 9)
    moved = step.to(torch.device("cpu"), non_blocking=True)
    assert (moved.index, moved.num_examples, moved.num_tokens, moved.num_target_tokens) == (3, 7, 8, 9)
    before, after = step.micro_batches[0], moved.micro_batches[0]
    assert after.lengths == before.lengths
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in TENSORS)


def test_moving_to_a_device_moves_every_tensor() -> None:
    moved = StepBatch(0, [collate(EXAMPLES, [0], PAD)], 1, 1, 1).to(torch.device("meta")).micro_batches[0]
    assert {getattr(moved, name).device.type for name in TENSORS} == {"meta"}


def test_a_step_is_no_dataclass_and_a_micro_batch_is_one() -> None:
    """Lightning rebuilds dataclasses field by field on their way to the device, and leaves alone what has ``to``."""
    assert not dataclasses.is_dataclass(StepBatch)
    assert dataclasses.is_dataclass(MicroBatch)


class TestStepDataset:
    def dataset(self, rank: int = 0, num_ranks: int = 1, num_steps: int = 5) -> StepDataset:
        examples = many_examples(40)
        indices = np.arange(3, 40, 2)  # those left after a validation split
        plan = StepPlan(examples.lengths[indices], examples.num_targets[indices], 7, 64, num_ranks, seed=5)
        return StepDataset(examples, indices, plan, rank=rank, num_steps=num_steps, pad_id=PAD)

    def test_an_item_is_a_ranks_share_of_that_step(self) -> None:
        dataset = self.dataset(rank=1, num_ranks=3)
        step, planned = dataset[2], dataset.plan.step(2)
        assert step.index == 2
        assert (step.num_examples, step.num_tokens, step.num_target_tokens) == (
            planned.num_examples,
            planned.num_tokens,
            planned.num_target_tokens,
        )
        for batch, chosen in zip(step.micro_batches, planned.micro_batches[1], strict=True):
            wanted = collate(dataset.examples, dataset.indices[list(chosen)].tolist(), PAD)
            assert torch.equal(batch.input_ids, wanted.input_ids)

    def test_ranks_together_have_the_steps_targets(self) -> None:
        for index in range(5):
            ranks = [self.dataset(rank, num_ranks=4)[index] for rank in range(4)]
            found = sum(len(batch.target_ids) for rank in ranks for batch in rank.micro_batches)
            assert {rank.num_target_tokens for rank in ranks} == {found}
            assert len({len(rank.micro_batches) for rank in ranks}) == 1

    def test_going_through_it_ends(self) -> None:
        """``__getitem__`` without an ``IndexError`` makes a ``for`` over the data set endless."""
        dataset = self.dataset()
        assert (
            [dataset[index].index for index in range(len(dataset))] == [step.index for step in dataset] == [*range(5)]
        )

    @pytest.mark.parametrize("index", [-1, 5])
    def test_a_step_that_is_not_there(self, index: int) -> None:
        with pytest.raises(IndexError):
            self.dataset()[index]
