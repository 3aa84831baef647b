"""Packed micro-batches: examples end to end in one row, their boundaries explicit.

Shapes: ``T`` tokens of a micro-batch, ``N`` examples in it, ``K`` target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from galpaca.data.encoding import EncodedExamples
from galpaca.data.plan import StepPlan


@dataclass(frozen=True)
class MicroBatch:
    """Examples that go through the model together without seeing each other.

    Attributes:
        input_ids: (1, T) int64.
        position_ids: (1, T) int64, from 0 in each example.
        cu_seqlens: (N + 1,) int32, where each example begins and the last one ends.
        lengths: N ints on the host, the same boundaries without a device read.
        target_rows: (K,) int64, rows whose next token carries loss.
        target_ids: (K,) int64, those next tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    target_rows: Tensor
    target_ids: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MicroBatch:
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function) -> MicroBatch:  # type: ignore[no-untyped-def]
        return replace(self, **{k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)})


class StepBatch:
    """One rank's share of one optimizer step.

    A plain class, not a dataclass: Lightning rebuilds dataclasses field by field on their way to the device.

    Attributes:
        index: the step's number, from 0.
        micro_batches: this rank's; as many as on every other rank.
        num_examples, num_tokens, num_target_tokens: of the whole step, over all ranks.
    """

    def __init__(
        self,
        index: int,
        micro_batches: Sequence[MicroBatch],
        num_examples: int,
        num_tokens: int,
        num_target_tokens: int,
    ) -> None:
        self.index = index
        self.micro_batches = tuple(micro_batches)
        self.num_examples = num_examples
        self.num_tokens = num_tokens
        self.num_target_tokens = num_target_tokens

    def to(self, device: torch.device, non_blocking: bool = False) -> StepBatch:
        return self._with(micro_batch.to(device, non_blocking) for micro_batch in self.micro_batches)

    def pin_memory(self) -> StepBatch:
        return self._with(micro_batch.pin_memory() for micro_batch in self.micro_batches)

    def _with(self, micro_batches) -> StepBatch:  # type: ignore[no-untyped-def]
        return StepBatch(self.index, tuple(micro_batches), self.num_examples, self.num_tokens, self.num_target_tokens)


def collate(examples: EncodedExamples, indices: Sequence[int], pad_id: int) -> MicroBatch:
    """Packs examples into a micro-batch.

    No examples give one token of padding without a target: a rank with nothing to do still has to take part in the
    other ranks' collectives, and its loss is a zero that depends on every parameter.
    """
    parts = [np.asarray(examples.ids(i), np.int64) for i in indices] or [np.array([pad_id])]
    ignored = [max(1, int(examples.num_ignored[i])) for i in indices] or [1]
    lengths = [len(part) for part in parts]
    starts = np.cumsum([0, *lengths])
    input_ids = np.concatenate(parts)
    targets = np.concatenate(
        [np.arange(start + skip, start + length) for start, skip, length in zip(starts, ignored, lengths, strict=False)]
    )
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        lengths=tuple(lengths),
        target_rows=torch.from_numpy(targets - 1),
        target_ids=torch.from_numpy(input_ids[targets]),
    )


class StepDataset(Dataset[StepBatch]):
    """The plan as a data set: item ``k`` is one rank's share of step ``k``.

    Args:
        examples: all encoded examples.
        indices: (N,) the plan's examples among them.
        rank: whose share.
        num_steps: how many steps there are.
        pad_id: token of an empty micro-batch.
    """

    def __init__(
        self,
        examples: EncodedExamples,
        indices: np.typing.NDArray[np.int64],
        plan: StepPlan,
        *,
        rank: int,
        num_steps: int,
        pad_id: int,
    ) -> None:
        self.examples, self.indices, self.plan = examples, indices, plan
        self.rank, self.num_steps, self.pad_id = rank, num_steps, pad_id

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> StepBatch:
        if not 0 <= index < self.num_steps:
            raise IndexError(index)
        step = self.plan.step(index)
        micro_batches = [
            collate(self.examples, [int(self.indices[i]) for i in chosen], self.pad_id)
            for chosen in step.micro_batches[self.rank]
        ]
        return StepBatch(index, micro_batches, step.num_examples, step.num_tokens, step.num_target_tokens)
