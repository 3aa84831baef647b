"""The step plan as Lightning data loaders."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from galpaca.data.collate import StepBatch, StepDataset
from galpaca.data.longest import longest_steps
from galpaca.data.plan import StepPlan
from galpaca.data.sizes import choose_sizes
from galpaca.data.split import SplitExamples
from galpaca.runs.shutdown import ignore_signals
from galpaca.training.specs import BatchSpec, TrainerSpec


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
        """Does nothing."""


class AlpacaDataModule(L.LightningDataModule):
    """Training and validation steps for this rank.

    Args:
        data: encoded examples to train on and to hold out.
        batch: examples per step, and the token budget of a micro-batch.
        trainer: how long to train, and processes that collate steps ahead of time.
        seed: seed of the shuffle.
        pad_id: id of the token that fills an empty micro-batch.
        pads_to_sizes: whether micro-batches are padded to a few sizes, for a compiled model.
    """

    # Set by the trainer before it requests a loader; Lightning's own annotation allows for None before that.
    trainer: L.Trainer

    def __init__(
        self,
        data: SplitExamples,
        batch: BatchSpec,
        trainer: TrainerSpec,
        *,
        seed: int,
        pad_id: int,
        pads_to_sizes: bool = False,
    ) -> None:
        super().__init__()
        self.data, self.batch, self.spec = data, batch, trainer
        self.seed, self.pad_id, self.pads_to_sizes = seed, pad_id, pads_to_sizes

    @property
    def num_steps(self) -> int:
        """Training steps that are taken."""
        longest = self.spec.longest_steps
        return self.num_whole_steps if longest is None else min(self.num_whole_steps, longest)

    @property
    def num_whole_steps(self) -> int:
        """Training steps of the whole run, which a rehearsal takes only some of."""
        of_epochs = self.spec.max_epochs * self.whole_plan(1).steps_per_epoch
        return of_epochs if self.spec.max_steps is None else min(of_epochs, self.spec.max_steps)

    def train_plan(self, num_ranks: int) -> StepPlan:
        whole = self.whole_plan(num_ranks)
        longest = self.spec.longest_steps
        return whole if longest is None else longest_steps(whole, self.num_whole_steps, longest)

    def whole_plan(self, num_ranks: int) -> StepPlan:
        return replace(self._plan(self.data.train, num_ranks, self.seed), shares=self.data.shares())

    def val_plans(self, num_ranks: int) -> list[StepPlan]:
        """A plan for the held-out examples of each source."""
        return [self._plan(indices, num_ranks, None) for _, indices in self.data.val_parts()]

    def train_dataloader(self) -> StepLoader:
        plan = self.train_plan(self.trainer.world_size)
        start, workers = self.trainer.global_step, self.spec.data_workers
        return self._loader(plan, self.data.train, self.num_steps, start=start, workers=workers)

    def val_dataloader(self) -> list[StepLoader]:
        plans = self.val_plans(self.trainer.world_size)
        return [
            self._loader(plan, indices, plan.steps_per_epoch, start=0)
            for plan, (_, indices) in zip(plans, self.data.val_parts(), strict=True)
        ]

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, dataloader_idx: int) -> StepBatch:
        # Lightning's own way would wait for all that the GPU still has to do.
        return batch.to(device, non_blocking=True)

    def _plan(self, indices: npt.NDArray[np.int64], num_ranks: int, seed: int | None) -> StepPlan:
        return StepPlan(
            lengths=self.data.examples.lengths[indices],
            num_targets=self.data.examples.num_targets[indices],
            examples=self.batch.examples,
            max_tokens=self.batch.max_tokens,
            num_ranks=num_ranks,
            seed=seed,
        )

    def _loader(
        self, plan: StepPlan, indices: npt.NDArray[np.int64], num_steps: int, start: int, workers: int = 0
    ) -> StepLoader:
        dataset = StepDataset(
            self.data.examples,
            indices,
            plan,
            rank=self.trainer.global_rank,
            num_steps=num_steps,
            pad_id=self.pad_id,
            sizes=choose_sizes(plan) if self.pads_to_sizes else None,
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
