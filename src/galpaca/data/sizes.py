"""The sizes to which micro-batches are padded, so that a compiled model meets the same few again and again."""

import math
from dataclasses import dataclass

import numpy as np

from galpaca.data.plan import StepPlan

# Of a micro-batch of mean size.
_MOST_PADDING = 0.005
# Tensor cores take 8 numbers of 16 bits at a time; beyond 128 a matrix product's tiles are full.
_SMALLEST_MULTIPLE, _LARGEST_MULTIPLE = 8, 128


@dataclass(frozen=True)
class Sizes:
    """Sizes of padded micro-batches.

    Attributes:
        multiple_tokens: a micro-batch is padded to a multiple of it,
        max_tokens: but not beyond the budget.
        num_examples: the boundaries of this many examples are passed, padded with empty ones.
        longest_tokens: no example, and no padding, is longer.
    """

    multiple_tokens: int
    max_tokens: int
    num_examples: int
    longest_tokens: int

    def padded(self, num_tokens: int) -> int:
        """Tokens of a micro-batch after padding."""
        return min(self.max_tokens, math.ceil(num_tokens / self.multiple_tokens) * self.multiple_tokens)


def choose_sizes(plan: StepPlan) -> Sizes:
    """Sizes that cost at most half a percent of a plan's tokens, the same for a whole run and on all its ranks."""
    step_tokens = plan.lengths.sum() / plan.steps_per_epoch / plan.num_ranks
    mean_tokens = step_tokens / math.ceil(step_tokens / plan.max_tokens)
    # On average half a multiple is padding.
    bound = max(1.0, 2 * _MOST_PADDING * mean_tokens)
    multiple = int(np.clip(2 ** math.floor(math.log2(bound)), _SMALLEST_MULTIPLE, _LARGEST_MULTIPLE))
    shortest_first = np.cumsum(np.sort(plan.lengths))
    most_examples = min(plan.examples, int(np.searchsorted(shortest_first, plan.max_tokens, side="right")))
    return Sizes(
        multiple_tokens=multiple,
        max_tokens=plan.max_tokens,
        num_examples=most_examples + 1,  # the padding is one more
        longest_tokens=max(int(plan.lengths.max()), multiple),
    )
