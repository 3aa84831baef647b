"""Histograms of example lengths, small enough to save with a run."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_BINS = 40


def histograms(lengths: npt.NDArray[np.integer], num_targets: npt.NDArray[np.integer]) -> dict[str, Any]:
    """Examples by their tokens and by their target tokens, in bins of the same whole number of tokens.

    Args:
        lengths: (N,) tokens of each example.
        num_targets: (N,) of them with loss.

    Returns:
        ``bin_tokens``, the width of a bin; ``lengths`` and ``targets``, examples in each bin: bin ``i`` counts those of
        ``i * bin_tokens`` up to ``(i + 1) * bin_tokens - 1`` tokens. Empty bins at the end are left out.
    """
    longest = int(lengths.max(initial=0))
    bin_tokens = max(1, math.ceil((longest + 1) / _MOST_BINS))
    return {
        "bin_tokens": bin_tokens,
        "lengths": np.bincount(lengths // bin_tokens).tolist(),
        "targets": np.bincount(num_targets // bin_tokens).tolist(),
    }
