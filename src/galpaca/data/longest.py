"""The longest steps of a plan, for rehearsals: the worst case for the machine."""

from dataclasses import dataclass, replace

import numpy as np

from galpaca.data.plan import StepPlan


@dataclass(frozen=True)
class _Weight:
    """How heavy a step is, in tokens.

    Attributes:
        index: index of the step in the plan.
        time: tokens of the fullest rank, summed over micro-batches, since ranks wait for each other in each of them.
        fullest: tokens of the fullest micro-batch.
        targets: most target tokens of a micro-batch, since the head's outputs take memory for these.
    """

    index: int
    time: int
    fullest: int
    targets: int


def longest_steps(plan: StepPlan, num_steps: int, num_chosen: int) -> StepPlan:
    """The plan of the longest steps, the same on every rank.

    Those that decide the peak of memory are among them: the step with the fullest micro-batch, and the one whose
    micro-batch has most target tokens. The fullest come first, so that a GPU without room shows soon, but for the very
    first step, in which there are no moments yet: there stands the least full.

    Args:
        plan: plan of the whole run.
        num_steps: number of steps of the whole run.
        num_chosen: how many to take, at most all.
    """
    weights = [_weigh(plan, index) for index in range(num_steps)]
    by_time = sorted(weights, key=lambda w: (-w.time, w.index))
    needed = [
        max(weights, key=lambda w: (w.fullest, w.time, -w.index)),
        max(weights, key=lambda w: (w.targets, w.time, -w.index)),
    ]
    chosen = list(dict.fromkeys([*needed, *by_time]))[:num_chosen]
    fullest_first = sorted(chosen, key=lambda w: (-w.fullest, -w.time, w.index))
    return replace(plan, only=tuple(w.index for w in [*fullest_first[-1:], *fullest_first[:-1]]))


def _weigh(plan: StepPlan, index: int) -> _Weight:
    micro_batches = plan.step(index).micro_batches
    loads, targets = (
        np.array([[column[list(m)].sum() for m in rank] for rank in micro_batches])
        for column in (plan.lengths, plan.num_targets)
    )
    return _Weight(index, int(loads.max(axis=0).sum()), int(loads.max()), int(targets.max()))
