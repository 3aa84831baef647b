"""Packed micro-batches: every boundary explicit, every target behind the row that predicts it."""

import dataclasses

import numpy as np
import pytest
import torch

from galpaca.data.collate import IGNORED_ID, MicroBatch, StepBatch, StepDataset, collate
from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.plan import PlannedStep, StepPlan
from galpaca.data.receipt import Receipt
from galpaca.data.sizes import Sizes, choose_sizes

PAD = 1
TENSORS = ("input_ids", "position_ids", "cu_seqlens", "target_rows", "target_ids")


def examples_of(*given: tuple[list[int], int]) -> EncodedExamples:
    """Examples from their ids and the number of ignored ones."""
    count = len(given)
    return EncodedExamples(
        tokens=np.concatenate([np.array(ids, np.uint16) for ids, _ in given]),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in given)], dtype=np.int64),
        **spans_behind([ignored for _, ignored in given], [len(ids) for ids, _ in given]),
        content_hashes=np.arange(count, dtype=np.uint64),
        prompt_hashes=np.arange(count, dtype=np.uint64),
        near_hashes=np.arange(count, dtype=np.uint64),
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


PLANNED = PlannedStep(3, (((0, 3),),), num_examples=2, num_tokens=8, num_target_tokens=4, num_attention_pairs=34)


def test_moving_to_a_device_keeps_everything() -> None:
    step = StepBatch(PLANNED, [collate(EXAMPLES, [0, 3], PAD)], 12)
    moved = step.to(torch.device("cpu"), non_blocking=True)
    assert (moved.index, moved.planned, moved.num_padded_tokens) == (3, PLANNED, 12)
    before, after = step.micro_batches[0], moved.micro_batches[0]
    assert after.lengths == before.lengths
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in TENSORS)


def test_moving_to_a_device_moves_every_tensor() -> None:
    moved = StepBatch(PLANNED, [collate(EXAMPLES, [0], PAD)], 12).to(torch.device("meta")).micro_batches[0]
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
        assert (step.index, step.planned) == (2, planned)
        for batch, chosen in zip(step.micro_batches, planned.micro_batches[1], strict=True):
            wanted = collate(dataset.examples, dataset.indices[list(chosen)].tolist(), PAD)
            assert torch.equal(batch.input_ids, wanted.input_ids)

    def test_ranks_together_have_the_steps_targets(self) -> None:
        for index in range(5):
            ranks = [self.dataset(rank, num_ranks=4)[index] for rank in range(4)]
            found = sum(len(batch.target_ids) for rank in ranks for batch in rank.micro_batches)
            assert {rank.planned.num_target_tokens for rank in ranks} == {found}
            assert len({len(rank.micro_batches) for rank in ranks}) == 1

    def test_going_through_it_ends(self) -> None:
        """``__getitem__`` without an ``IndexError`` makes a ``for`` over the data set endless."""
        dataset = self.dataset()
        assert [dataset[index].index for index in range(len(dataset))] == [*range(5)]
        assert [step.index for step in dataset] == [*range(5)]  # type: ignore[attr-defined]  # there is no ``__iter__``

    @pytest.mark.parametrize("index", [-1, 5])
    def test_a_step_that_is_not_there(self, index: int) -> None:
        with pytest.raises(IndexError):
            self.dataset()[index]


class TestPadding:
    """For a compiled model: the same few sizes, and nothing that the loss could see."""

    SIZES = Sizes(multiple_tokens=8, max_tokens=60, num_examples=5, longest_tokens=30)

    def padded(self, indices: list[int]) -> tuple[MicroBatch, MicroBatch]:
        return collate(EXAMPLES, indices, PAD), collate(EXAMPLES, indices, PAD, self.SIZES)

    @pytest.mark.parametrize("indices", [[0], [0, 3], [1, 2, 3], []])
    def test_sizes(self, indices: list[int]) -> None:
        plain, padded = self.padded(indices)
        tokens = padded.input_ids.shape[1]
        assert tokens % 8 == 0
        assert 0 <= tokens - plain.input_ids.shape[1] < 8
        assert padded.position_ids.shape == padded.input_ids.shape
        assert len(padded.cu_seqlens) == self.SIZES.num_examples + 1
        assert len(padded.target_rows) == len(padded.target_ids)
        assert len(padded.target_rows) % 8 == 0
        assert len(padded.target_rows) > 0
        assert padded.longest_tokens == 30

    @pytest.mark.parametrize("indices", [[0], [0, 3], [1, 2, 3]])
    def test_what_was_there_stays(self, indices: list[int]) -> None:
        plain, padded = self.padded(indices)
        for name in ("input_ids", "position_ids"):
            before, after = getattr(plain, name)[0], getattr(padded, name)[0]
            assert torch.equal(after[: len(before)], before)
        real = padded.target_ids != IGNORED_ID
        assert torch.equal(padded.target_ids[real], plain.target_ids)
        assert torch.equal(padded.target_rows[real], plain.target_rows)

    def test_padding_is_an_example_of_its_own(self) -> None:
        plain, padded = self.padded([0, 3])
        num_tokens, num_padded = plain.input_ids.shape[1], padded.input_ids.shape[1]
        assert num_padded > num_tokens
        ends = padded.cu_seqlens.tolist()
        assert ends[:3] == plain.cu_seqlens.tolist()
        assert set(ends[3:]) == {num_padded}
        assert sum(padded.lengths) == num_padded
        assert set(padded.input_ids[0, num_tokens:].tolist()) == {PAD}

    def test_the_budget_holds_with_padding(self) -> None:
        assert [self.SIZES.padded(tokens) for tokens in (1, 8, 9, 56, 57, 60)] == [8, 8, 16, 56, 60, 60]

    def test_a_step_tells_its_padded_tokens_over_all_ranks(self) -> None:
        examples = many_examples(40)
        plan = StepPlan(examples.lengths, examples.num_targets, 7, 64, 3, seed=5)
        sizes = choose_sizes(plan)
        ranks = [
            StepDataset(examples, np.arange(40), plan, rank=rank, num_steps=5, pad_id=PAD, sizes=sizes)
            for rank in range(3)
        ]
        for index in range(5):
            found = sum(batch.input_ids.shape[1] for rank in ranks for batch in rank[index].micro_batches)
            assert {rank[index].num_padded_tokens for rank in ranks} == {found}
