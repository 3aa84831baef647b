"""The steps of a run that is not prepared: how many, and the loads of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from galpaca.app.config.schema import Config
from galpaca.data.alpaca_lengths import alpaca_lengths
from galpaca.data.plan import PlannedStep, StepPlan
from galpaca.data.sizes import Sizes, choose_sizes
from galpaca.estimate.memory import Fullest
from galpaca.estimate.speed import Load

# Looked at: these many evenly through an epoch, and of the longest.
_NUM_EVEN, _NUM_LONGEST = 24, 8
# Of a step, as a share of its tokens, the load of the fullest rank: what a budget must hold for one micro-batch.
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class PlannedRun:
    """A run's steps, on some number of ranks.

    Attributes:
        plan: all steps.
        num_steps: those that are taken.
        is_padded: micro-batches are padded to a few sizes.
    """

    plan: StepPlan
    num_steps: int
    is_padded: bool

    @classmethod
    def of(cls, config: Config, num_ranks: int, num_records: int, *, is_padded: bool) -> PlannedRun:
        """With lengths as Alpaca's.

        Args:
            num_records: of which some are held out.
        """
        data, batch, trainer = config.data, config.batch, config.trainer
        trained = max(1, round(num_records * (1 - data.val_fraction - data.test_fraction)))
        sizes = (data.max_length, batch.examples, batch.max_tokens, num_ranks, trained, config.seed)
        return _planned(_Planning(*sizes, trainer.max_epochs, trainer.max_steps, is_padded))

    @cached_property
    def loads(self) -> list[list[list[Load]]]:
        """``[step][micro-batch][rank]`` of some steps, evenly chosen; then of the longest."""
        return [self._loads(step) for step in (*self._even, *self._longest)]

    @property
    def even_loads(self) -> list[list[list[Load]]]:
        return self.loads[: len(self._even)]

    @property
    def mean_tokens(self) -> float:
        """Of a step, over all ranks and without padding."""
        return float(np.mean([step.num_tokens for step in self._even]))

    @property
    def mean_micro_batches(self) -> float:
        return float(np.mean([len(loads) for loads in self.even_loads]))

    @property
    def num_tokens(self) -> int:
        """Of all steps."""
        return round(self.mean_tokens * self.num_steps)

    def fullest(self) -> list[Fullest]:
        """Micro-batches that may take most, one of each step that was looked at."""
        found = {
            Fullest(
                max(load.num_tokens for ranks in step for load in ranks),
                max(load.num_targets for ranks in step for load in ranks),
                is_only=len(step) == 1,
            )
            for step in self.loads
        }
        return sorted(found, key=lambda one: (one.is_only, -one.num_tokens, -one.num_targets))

    def one_micro_batch_tokens(self) -> int:
        """The budget with which nearly every step has a single micro-batch, rounded up to 256 tokens."""
        fullest = [
            sum(load.num_tokens for load in rank) for step in self.even_loads for rank in zip(*step, strict=True)
        ]
        return -(-int(np.quantile(fullest, _NEARLY_ALL)) // 256) * 256

    @cached_property
    def _even(self) -> list[PlannedStep]:
        per_epoch = self.plan.steps_per_epoch
        chosen = np.unique(np.linspace(0, per_epoch - 1, min(_NUM_EVEN, per_epoch)).astype(int))
        return [self.plan.step(int(index)) for index in chosen]

    @cached_property
    def _longest(self) -> list[PlannedStep]:
        totals = [int(self.plan.lengths[self.plan.step_examples(index)].sum()) for index in range(self.num_steps)]
        return [self.plan.step(int(index)) for index in np.argsort(totals)[-_NUM_LONGEST:]]

    def _loads(self, step: PlannedStep) -> list[list[Load]]:
        padded = self._sizes.padded if self._sizes else int
        ranks = [[self._load(examples, padded) for examples in rank] for rank in step.micro_batches]
        return [list(micro_batch) for micro_batch in zip(*ranks, strict=True)]

    def _load(self, examples: tuple[int, ...], padded: Callable[[int], int]) -> Load:
        lengths = self.plan.lengths[list(examples)]
        targets = int(self.plan.num_targets[list(examples)].sum())
        return Load(padded(int(lengths.sum())), padded(targets), int(np.square(lengths).sum()))

    @cached_property
    def _sizes(self) -> Sizes | None:
        return choose_sizes(self.plan) if self.is_padded else None


class _Planning(NamedTuple):
    """All that a plan depends on."""

    max_length: int
    examples: int
    max_tokens: int
    num_ranks: int
    num_records: int
    seed: int
    max_epochs: int
    max_steps: int | None
    is_padded: bool


@cache  # advice asks again and again
def _planned(of: _Planning) -> PlannedRun:
    lengths = alpaca_lengths(of.num_records).truncated(of.max_length)
    plan = StepPlan(lengths.num_tokens, lengths.num_targets, of.examples, of.max_tokens, of.num_ranks, of.seed)
    steps = plan.steps_per_epoch * of.max_epochs
    return PlannedRun(plan, min(steps, of.max_steps or steps), of.is_padded)
