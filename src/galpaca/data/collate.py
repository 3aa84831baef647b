"""Packed micro-batches: examples end to end in one row, their boundaries explicit.

Shapes: ``T`` tokens of a micro-batch, ``N`` examples in it, ``K`` target tokens. Padding, where there is any, is one
more example at the end, without targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from galpaca.data.examples import EncodedExamples
from galpaca.data.plan import PlannedStep, StepPlan
from galpaca.data.sizes import Sizes

# What torch's cross-entropy leaves out by default.
IGNORED_ID = -100


@dataclass(frozen=True)
class MicroBatch:
    """Examples that go through the model together without seeing each other.

    Attributes:
        input_ids: (1, T) int64.
        position_ids: (1, T) int64, from 0 in each example.
        cu_seqlens: (N + 1,) int32, where each example begins and the last one ends; padded with empty examples.
        lengths: N ints on the host, the same boundaries without a device read and without the empty examples.
        longest_tokens: a bound of the lengths, the same for all micro-batches of a run that is padded.
        target_rows: (K,) int64, rows whose next token carries loss; padded with the last row.
        target_ids: (K,) int64, those next tokens; padded with ``IGNORED_ID``.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    longest_tokens: int
    target_rows: Tensor
    target_ids: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MicroBatch:
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function) -> MicroBatch:  # type: ignore[no-untyped-def]
        return replace(self, **{k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)})


class StepBatch:
    """One rank's share of an optimizer step.

    A plain class, not a dataclass: Lightning rebuilds dataclasses field by field on their way to the device.

    Attributes:
        planned: plan of the whole step, over all ranks.
        micro_batches: this rank's micro-batches; every rank has the same number.
        num_padded_tokens: tokens of the whole step, padding included.
    """

    def __init__(self, planned: PlannedStep, micro_batches: Sequence[MicroBatch], num_padded_tokens: int) -> None:
        self.planned = planned
        self.micro_batches = tuple(micro_batches)
        self.num_padded_tokens = num_padded_tokens

    @property
    def index(self) -> int:
        """The step's number, from 0."""
        return self.planned.index

    def to(self, device: torch.device, non_blocking: bool = False) -> StepBatch:
        return self._with(micro_batch.to(device, non_blocking) for micro_batch in self.micro_batches)

    def pin_memory(self) -> StepBatch:
        return self._with(micro_batch.pin_memory() for micro_batch in self.micro_batches)

    def _with(self, micro_batches: Iterable[MicroBatch]) -> StepBatch:
        return StepBatch(self.planned, tuple(micro_batches), self.num_padded_tokens)


def collate(examples: EncodedExamples, indices: Sequence[int], pad_id: int, sizes: Sizes | None = None) -> MicroBatch:
    """Packs examples into a micro-batch.

    No examples give one token of padding without a target: a rank with nothing to do still has to take part in the
    other ranks' collectives, and its loss is a zero that depends on every parameter.

    Args:
        examples: all encoded examples.
        indices: which to pack, in this order.
        pad_id: id of the padding token.
        sizes: sizes to pad to; None leaves the micro-batch unpadded.
    """
    parts = [np.asarray(examples.ids(i), np.int64) for i in indices]
    num_tokens = sum(map(len, parts))
    if padding := (sizes.padded(max(1, num_tokens)) if sizes else max(1, num_tokens)) - num_tokens:
        parts.append(np.full(padding, pad_id))
    lengths = [len(part) for part in parts]
    positions = [np.arange(length) for length in lengths]
    if padding:
        positions[-1][:] = 0  # there may be more padding than the model has positions
    starts = np.cumsum([0, *lengths])
    places = [_target_places(examples, i, start) for i, start in zip(indices, starts, strict=False)]
    targets = np.concatenate([np.arange(0), *places])
    input_ids = np.concatenate(parts)
    target_rows, target_ids = targets - 1, input_ids[targets]
    if sizes:
        starts = np.pad(starts, (0, sizes.num_examples + 1 - len(starts)), mode="edge")
        more_rows = sizes.padded(max(1, len(targets))) - len(targets)
        target_rows = np.pad(target_rows, (0, more_rows), constant_values=len(input_ids) - 1)
        target_ids = np.pad(target_ids, (0, more_rows), constant_values=IGNORED_ID)
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(np.concatenate(positions))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        lengths=tuple(lengths),
        longest_tokens=sizes.longest_tokens if sizes else max(lengths),
        target_rows=torch.from_numpy(target_rows),
        target_ids=torch.from_numpy(target_ids),
    )


def _target_places(examples: EncodedExamples, index: int, start: int) -> npt.NDArray[np.int64]:
    """(K,) where the targets of an example are, in a row where it begins at ``start``."""
    return start + np.concatenate([np.arange(0), *(np.arange(*span) for span in examples.targets(index))])


def collate_prompts(texts: Sequence[Sequence[int]]) -> MicroBatch:
    """Packs prompts whose next tokens are wanted: the target rows are their last tokens.

    Args:
        texts: token ids of each prompt, at least one id.
    """
    lengths = [len(text) for text in texts]
    starts = np.cumsum([0, *lengths])
    return MicroBatch(
        input_ids=torch.tensor([i for text in texts for i in text])[None],
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        lengths=tuple(lengths),
        longest_tokens=max(lengths),
        target_rows=torch.from_numpy(starts[1:] - 1),
        target_ids=torch.full((len(texts),), IGNORED_ID),
    )


@dataclass(frozen=True, eq=False)
class StepDataset(Dataset[StepBatch]):
    """The plan as a data set: item ``k`` is one rank's share of step ``k``.

    Attributes:
        examples: all encoded examples.
        indices: (N,) the plan's examples among them.
        rank: rank whose share it is.
        num_steps: how many steps there are.
        pad_id: id of the padding token.
        sizes: sizes that micro-batches are padded to; None leaves them as they are.
    """

    examples: EncodedExamples
    indices: np.typing.NDArray[np.int64]
    plan: StepPlan
    rank: int
    num_steps: int
    pad_id: int
    sizes: Sizes | None = None

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> StepBatch:
        if not 0 <= index < self.num_steps:
            raise IndexError(index)
        planned = self.plan.step(index)
        micro_batches = [
            collate(self.examples, [int(self.indices[i]) for i in chosen], self.pad_id, self.sizes)
            for chosen in planned.micro_batches[self.rank]
        ]
        return StepBatch(planned, micro_batches, self._padded_tokens(planned))

    def _padded_tokens(self, planned: PlannedStep) -> int:
        sizes = self.sizes
        if sizes is None:
            return planned.num_tokens
        loads = [int(self.plan.lengths[list(chosen)].sum()) for rank in planned.micro_batches for chosen in rank]
        return sum(sizes.padded(max(1, load)) for load in loads)
