"""The step plan: which examples make up a step, and how they are packed into the micro-batches of each rank.

Step ``k`` is a pure function of the examples' lengths, the seed and ``k``. Every rank computes it alone and finds the
same, so resuming is a number and the examples of a step do not depend on how many ranks there are.
"""

import heapq
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from galpaca.data.shares import Share, shuffled
from galpaca.errors import InputError

MicroBatchExamples = tuple[int, ...]


@dataclass(frozen=True)
class PlannedStep:
    """The work of one optimizer step.

    Attributes:
        index: the step's number, from 0.
        micro_batches: ``[rank][m]`` is a tuple of example indices, empty where a rank has nothing to do. All ranks
            have the same number of micro-batches.
        num_examples, num_tokens, num_target_tokens: over all ranks.
        num_attention_pairs: sum over all examples of their squared length.
    """

    index: int
    micro_batches: tuple[tuple[MicroBatchExamples, ...], ...]
    num_examples: int
    num_tokens: int
    num_target_tokens: int
    num_attention_pairs: int


@dataclass(frozen=True)
class StepPlan:
    """Steps over several epochs of shuffled examples.

    Attributes:
        lengths: (N,) tokens of each example.
        num_targets: (N,) target tokens of each example.
        examples: examples a step; the last step of an epoch may have fewer.
        max_tokens: budget of a micro-batch.
        num_ranks: ranks that share a step.
        seed: seed of the shuffle; None keeps the order.
        shares: what an epoch takes of each source; none takes every example once.
        only: the steps that are taken, by their indices among all; None takes all in their order.
    """

    lengths: npt.NDArray[np.int64]
    num_targets: npt.NDArray[np.int64]
    examples: int
    max_tokens: int
    num_ranks: int
    seed: int | None
    only: tuple[int, ...] | None = None
    shares: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        longest = int(self.lengths.max()) if len(self.lengths) else 0
        if longest > self.max_tokens:
            raise InputError(
                f"the longest example has {longest:,} tokens, but a micro-batch holds at most {self.max_tokens:,}",
                where="batch.max_tokens",
                fix=f"batch.max_tokens={longest} or more, or a smaller data.max_length",
            )

    @property
    def num_epoch_examples(self) -> int:
        """Examples of an epoch, those that come again counted again."""
        return sum(share.num_taken for share in self.shares) if self.shares else len(self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_epoch_examples / self.examples)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """(num_epoch_examples,) the epoch's examples in their order."""
        if self.seed is None:
            return np.arange(len(self.lengths))
        if not self.shares:
            return shuffled(len(self.lengths), self.seed, epoch)
        taken = np.concatenate([share.taken(epoch, self.seed) for share in self.shares])
        return taken[shuffled(len(taken), self.seed, epoch)]

    def step_examples(self, index: int) -> npt.NDArray[np.int64]:
        """The examples of step ``index``, in shuffled order."""
        chosen = index if self.only is None else self.only[index]
        epoch, within = divmod(chosen, self.steps_per_epoch)
        return self._epoch_order(epoch)[within * self.examples : (within + 1) * self.examples]

    def step(self, index: int) -> PlannedStep:
        chosen = self.step_examples(index)
        bins = pack(self.lengths[chosen], self.num_ranks, self.max_tokens)
        micro_batches = tuple(tuple(tuple(int(chosen[i]) for i in m) for m in rank) for rank in bins)
        return PlannedStep(
            index=index,
            micro_batches=micro_batches,
            num_examples=len(chosen),
            num_tokens=int(self.lengths[chosen].sum()),
            num_target_tokens=int(self.num_targets[chosen].sum()),
            num_attention_pairs=int(np.square(self.lengths[chosen], dtype=np.int64).sum()),
        )

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders.clear()  # steps go forward: one epoch's order is enough
            self._orders[epoch] = self.order(epoch)
        return self._orders[epoch]

    @cached_property
    def _orders(self) -> dict[int, npt.NDArray[np.int64]]:
        return {}


def pack(lengths: npt.NDArray[np.int64], num_ranks: int, max_tokens: int) -> list[list[list[int]]]:
    """Distributes examples over ranks and micro-batches.

    Longest first, each example goes to the emptiest micro-batch (longest-processing-time rule, Graham 1969). The
    number of micro-batches a rank is the smallest for which that, best-fit decreasing, or a search stays within the
    budget.
    Micro-batches of about the same size run at the same time, since ranks wait for each other in each of them.

    Args:
        lengths: (N,) tokens of each example, none above ``max_tokens``.
        num_ranks: ranks that share the step.
        max_tokens: budget of a micro-batch.

    Returns:
        ``[rank][m]``: positions in ``lengths``; the fullest micro-batches come first.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    sizes = [int(lengths[i]) for i in order]
    micro_batches = max(1, math.ceil(sum(sizes) / (num_ranks * max_tokens)))
    while (bins := _fit(sizes, num_ranks * micro_batches, max_tokens)) is None:
        micro_batches += 1
    loads = [sum(sizes[i] for i in content) for content in bins]
    fullest_first = sorted(range(len(bins)), key=lambda b: (-loads[b], b))
    ranks: list[list[list[int]]] = [[] for _ in range(num_ranks)]
    for position, b in enumerate(fullest_first):
        m, rank = divmod(position, num_ranks)
        # Every second round goes back, so that no rank gets the fullest of each.
        ranks[rank if m % 2 == 0 else num_ranks - 1 - rank].append([order[i] for i in bins[b]])
    return ranks


def _fit(sizes: list[int], num_bins: int, capacity: int) -> list[list[int]] | None:
    """Sizes, largest first, into so many bins; evenly if that is possible."""
    for packer in (_emptiest_first, _tightest_first, _searched):
        if (bins := packer(sizes, num_bins, capacity)) is not None:
            return bins
    return None


def _emptiest_first(sizes: list[int], num_bins: int, capacity: int) -> list[list[int]] | None:
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    heap = [(0, b) for b in range(num_bins)]
    for i, size in enumerate(sizes):
        load, b = heap[0]
        if load + size > capacity:
            return None  # it does not fit into the emptiest, so it fits into none
        bins[b].append(i)
        heapq.heapreplace(heap, (load + size, b))
    return bins


def _tightest_first(sizes: list[int], num_bins: int, capacity: int) -> list[list[int]] | None:
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    for i, size in enumerate(sizes):
        fitting = [b for b in range(num_bins) if loads[b] + size <= capacity]
        if not fitting:
            return None
        b = max(fitting, key=lambda b: (loads[b], -b))
        bins[b].append(i)
        loads[b] += size
    return bins


# Enough for a dozen examples in every case, and for most tight steps of 128; beyond, one micro-batch more is taken.
_MOST_TRIES = 5_000
_MOST_SEARCHED = 500  # one call deep for each


def _searched(sizes: list[int], num_bins: int, capacity: int) -> list[list[int]] | None:
    """Every place for every size, the tightest first, until all fit or there were too many tries."""
    if sum(sizes) > num_bins * capacity or len(sizes) > _MOST_SEARCHED:
        return None
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    tries = 0

    def place(i: int) -> bool:
        nonlocal tries
        if i == len(sizes):
            return True
        # Bins of one load are as good as each other.
        for load, b in sorted({load: b for b, load in enumerate(loads)}.items(), reverse=True):
            tries += 1
            if load + sizes[i] > capacity or tries > _MOST_TRIES:
                continue
            bins[b].append(i)
            loads[b] += sizes[i]
            if place(i + 1):
                return True
            bins[b].pop()
            loads[b] -= sizes[i]
        return False

    return bins if place(0) else None


def summarize(plan: StepPlan, num_steps: int) -> dict[str, Any]:
    """Summary of a plan: its size, its packing efficiency and its load balance.

    Returns:
        JSON-ready figures. ``mean_imbalance`` is the mean over steps of (the fullest rank's tokens, summed over
        micro-batches that ranks run side by side) / (the mean rank's tokens) - 1.
    """
    micro_batches, num_tokens, num_targets, num_examples, imbalance, fullest = 0, 0, 0, 0, 0.0, 0
    without_target = 0
    for index in range(num_steps):
        step = plan.step(index)
        loads = np.array([[sum(plan.lengths[list(m)]) for m in rank] for rank in step.micro_batches])
        micro_batches += loads.shape[1]
        num_tokens += step.num_tokens
        num_targets += step.num_target_tokens
        num_examples += step.num_examples
        without_target += step.num_target_tokens == 0
        fullest = max(fullest, int(loads.max()))
        imbalance += float(loads.max(axis=0).sum() / loads.sum(axis=1).mean() - 1)
    return {
        "steps": num_steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "ranks": plan.num_ranks,
        "examples": num_examples,
        "tokens": num_tokens,
        "target_tokens": num_targets,
        "micro_batches_per_rank": micro_batches,
        "fullest_micro_batch_tokens": fullest,
        "mean_imbalance": round(imbalance / num_steps, 5) if num_steps else 0.0,
        "steps_without_target": without_target,
    }
