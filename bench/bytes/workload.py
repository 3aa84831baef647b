"""The step that is counted: a mean one of Alpaca's lengths, 128 examples."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bench.gpu.workload import alpaca_plan
from galpaca.data.sizes import choose_sizes

_STEPS = 100


@dataclass(frozen=True)
class Workload:
    """A rank's part of a step.

    Attributes:
        ranks: that share the step.
        micro_batches: as many as most steps have.
        num_tokens, num_targets: of a mean micro-batch, padded.
    """

    ranks: int
    micro_batches: int
    num_tokens: int
    num_targets: int


def mean_workload(max_tokens: int, ranks: int) -> Workload:
    """A rank's mean part of the steps that have the most common number of micro-batches.

    Args:
        max_tokens: budget of a micro-batch.
    """
    plan = alpaca_plan(max_tokens, ranks)
    sizes = choose_sizes(plan)
    steps = [plan.step(index).micro_batches for index in range(_STEPS)]
    ((usual, _),) = Counter(len(step[0]) for step in steps).most_common(1)
    chosen = [list(one) for step in steps if len(step[0]) == usual for rank in step for one in rank]
    tokens = np.mean([sizes.padded(int(plan.lengths[one].sum())) for one in chosen])
    targets = np.mean([sizes.padded(max(1, int(plan.num_targets[one].sum()))) for one in chosen])
    return Workload(ranks, usual, sizes.padded(round(tokens)), sizes.padded(round(targets)))
