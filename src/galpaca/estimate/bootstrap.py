"""Confidence intervals of weighted means and their differences: percentile bootstrap over records.

The measured things are drawn again, with replacement, as many as there are. Models that were measured on the same
things are drawn together, so that what makes a record hard for all of them does not widen their difference.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 2_000
LEVEL = 0.95

# Of the counts of a piece of all draws; 32 MiB.
_PIECE_NUMBERS = 2**22

Sign = Literal["lower", "higher", "open"]


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval; no interval if only one item was measured."""

    value: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> Sign:
        """Of a difference: on which side of zero the whole interval lies; ``open`` where it holds zero."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "open"
        return "lower" if self.high < 0 else "higher"


@dataclass(frozen=True)
class Paired:
    """Of each model its mean, and that mean less the first model's; the first one's own difference is 0."""

    means: list[Estimate]
    differences: list[Estimate]


def paired_bootstrap(
    sums: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Paired | None:
    """Means of several models over the same records, each record's sum divided by its weight.

    Args:
        sums: (M models, N records) such as summed negative log-likelihoods.
        weights: (M, N) such as target tokens; a mean is the sum of all sums by the sum of all weights.
        seed: seed of the resampling.
        level: confidence level of the intervals.

    Returns:
        None where a model's weights sum to nothing.
    """
    numerators, denominators = np.atleast_2d(np.asarray(sums, float)), np.atleast_2d(np.asarray(weights, float))
    num_models, num_records = numerators.shape
    if not num_records or (denominators.sum(axis=1) <= 0).any():
        return None
    means = numerators.sum(axis=1) / denominators.sum(axis=1)
    drawn = np.empty((0, num_models))
    if num_records > 1:
        drawn = _drawn_means(numerators, denominators, num_resamples, seed)
    differences = _estimates(means - means[0], drawn - drawn[:, :1], level)
    return Paired(_estimates(means, drawn, level), differences)


def _drawn_means(
    numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64], num_resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """(resamples, M); those that drew nothing of any weight are left out."""
    num_records = numerators.shape[1]
    generator = np.random.default_rng(seed)
    shares = np.full(num_records, 1 / num_records)
    piece = max(1, _PIECE_NUMBERS // num_records)
    found = []
    for start in range(0, num_resamples, piece):
        # How often each record is drawn is all that a mean needs to know of a draw.
        counts = generator.multinomial(num_records, shares, size=min(piece, num_resamples - start)).astype(float)
        below = counts @ denominators.T
        whole = (below > 0).all(axis=1)
        found.append((counts[whole] @ numerators.T) / below[whole])
    return np.concatenate(found)


def _estimates(values: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], level: float) -> list[Estimate]:
    if not len(drawn):
        return [Estimate(float(value), None, None) for value in values]
    lows, highs = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Estimate(*map(float, row)) for row in zip(values, lows, highs, strict=True)]
