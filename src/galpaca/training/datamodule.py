"""The step plan as Lightning data loaders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from galpaca.data.collate import StepBatch, StepDataset
from galpaca.data.encoding import EncodedExamples
from galpaca.data.longest import longest_steps
from galpaca.data.plan import StepPlan
from galpaca.data.sizes import choose_sizes
from galpaca.runs.shutdown import ignore_signals


def _leave_signals(worker: int) -> None:
    ignore_signals()


class _StepRangeSampler(Sampler[int]):
    """The steps from ``start`` on; its length counts all of them, as Lightning's progress expects."""

    def __init__(self, start: int, num_steps: int) -> None:
        self.start, self.num_steps = start, num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.num_steps))


class StepLoader(DataLoader[StepBatch]):
    """A loader whose place is the trainer's step count.

    It answers Lightning's protocol of loaders that can resume with an empty state: there is nothing to remember.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class AlpacaDataModule(L.LightningDataModule):
    """Training and validation steps for this rank.

    Args:
        examples: all encoded examples.
        train_indices, val_indices: which of them to train on and to hold out.
        batch_examples: examples per step.
        max_tokens: token budget of a micro-batch.
        seed: seed of the shuffle.
        pad_id: id of the token that fills an empty micro-batch.
        max_epochs: passes over the training examples.
        max_steps: optional limit on training steps.
        longest: train only on this many of the longest steps; None takes all.
        pad: whether micro-batches are padded to a few sizes, for a compiled model.
        workers: data loading processes that collate steps ahead of time.
    """

    def __init__(
        self,
        examples: EncodedExamples,
        train_indices: npt.NDArray[np.int64],
        val_indices: npt.NDArray[np.int64],
        *,
        batch_examples: int,
        max_tokens: int,
        seed: int,
        pad_id: int,
        max_epochs: int,
        max_steps: int | None = None,
        longest: int | None = None,
        pad: bool = False,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.examples, self.train_indices, self.val_indices = examples, train_indices, val_indices
        self.batch_examples, self.max_tokens = batch_examples, max_tokens
        self.seed, self.pad_id = seed, pad_id
        self.max_epochs, self.max_steps, self.longest = max_epochs, max_steps, longest
        self.pad = pad
        self.workers = workers

    @property
    def num_steps(self) -> int:
        """Training steps that are taken."""
        return self.num_whole_steps if self.longest is None else min(self.num_whole_steps, self.longest)

    @property
    def num_whole_steps(self) -> int:
        """Training steps of the whole run, which a rehearsal takes only some of."""
        of_epochs = self.max_epochs * math.ceil(len(self.train_indices) / self.batch_examples)
        return of_epochs if self.max_steps is None else min(of_epochs, self.max_steps)

    def train_plan(self, num_ranks: int) -> StepPlan:
        whole = self.whole_plan(num_ranks)
        return whole if self.longest is None else longest_steps(whole, self.num_whole_steps, self.longest)

    def whole_plan(self, num_ranks: int) -> StepPlan:
        return self._plan(self.train_indices, num_ranks, self.seed)

    def val_plan(self, num_ranks: int) -> StepPlan:
        return self._plan(self.val_indices, num_ranks, None)

    def train_dataloader(self) -> StepLoader:
        assert self.trainer is not None
        plan = self.train_plan(self.trainer.world_size)
        return self._loader(
            plan, self.train_indices, self.num_steps, start=self.trainer.global_step, workers=self.workers
        )

    def val_dataloader(self) -> StepLoader | list[StepLoader]:
        if not len(self.val_indices):
            return []
        assert self.trainer is not None
        plan = self.val_plan(self.trainer.world_size)
        return self._loader(plan, self.val_indices, plan.steps_per_epoch, start=0)

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, dataloader_idx: int) -> StepBatch:
        # Lightning's own way would wait for all that the GPU still has to do.
        return batch.to(device, non_blocking=True)

    def _plan(self, indices: npt.NDArray[np.int64], num_ranks: int, seed: int | None) -> StepPlan:
        return StepPlan(
            lengths=self.examples.lengths[indices],
            num_targets=self.examples.num_targets[indices],
            examples=self.batch_examples,
            max_tokens=self.max_tokens,
            num_ranks=num_ranks,
            seed=seed,
        )

    def _loader(
        self, plan: StepPlan, indices: npt.NDArray[np.int64], num_steps: int, start: int, workers: int = 0
    ) -> StepLoader:
        assert self.trainer is not None
        dataset = StepDataset(
            self.examples,
            indices,
            plan,
            rank=self.trainer.global_rank,
            num_steps=num_steps,
            pad_id=self.pad_id,
            sizes=choose_sizes(plan) if self.pad else None,
        )
        return StepLoader(
            dataset,
            batch_size=None,
            sampler=_StepRangeSampler(start, num_steps),
            num_workers=workers,
            # A scheduler signals all processes of a job, and torch's workers would die of SIGTERM.
            worker_init_fn=_leave_signals,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
