"""Figures by step, made few enough to draw without losing what stands out."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from galpaca.runs.lines import StepLine, ValidationLine

Line = TypeVar("Line", StepLine, ValidationLine)
Array = npt.NDArray[np.float64]

# A plot is some 600 dots wide; each stretch keeps its smallest and its largest value.
STRETCHES = 600


class Series(NamedTuple):
    """Values by step, in order; what is no number is left out."""

    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.steps)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_series(lines: Iterable[Line], figure: Callable[[Line], Any]) -> Series:
    """One figure of all lines that have it."""
    pairs = [(line.step, value) for line in lines if is_number(value := figure(line))]
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Series(both[:, 0], both[:, 1])


def extremes(series: Series, stretches: int = STRETCHES) -> Series:
    """The first value and the last, and of each stretch of steps the smallest and the largest, in their order."""
    if len(series) <= 2 * stretches:
        return series
    bounds = np.linspace(0, len(series), stretches + 1).astype(int)
    kept = {0, len(series) - 1}
    for start, stop in pairwise(bounds.tolist()):
        part = series.values[start:stop]
        kept |= {start + int(part.argmin()), start + int(part.argmax())}
    indices = np.array(sorted(kept))
    return Series(series.steps[indices], series.values[indices])


def smoothed(series: Series, weights: Array, window: float) -> Series:
    """A running mean that forgets, without a bias at its start.

    Args:
        weights: weight of each value, such as the number of target tokens that a loss averages.
        window: steps over which a value keeps counting, roughly.
    """
    keep = 1 - 2 / (window + 1)
    total = weight = 0.0
    means = np.empty(len(series))
    for index, (value, own) in enumerate(zip(series.values.tolist(), weights.tolist(), strict=True)):
        total, weight = keep * total + own * value, keep * weight + own
        means[index] = total / weight if weight else np.nan
    known = np.isfinite(means)
    return Series(series.steps[known], means[known])


def window_for(num_steps: int) -> int:
    """Steps to smooth over: a fiftieth of the run, at least five."""
    return max(5, num_steps // 50)


def stretch_means(series: Series, stretches: int) -> Series:
    """Means over equally long stretches of a run, at the step in which each ends."""
    if len(series) <= stretches:
        return series
    bounds = np.linspace(0, len(series), stretches + 1).astype(int)
    sums = np.add.reduceat(series.values, bounds[:-1])
    return Series(series.steps[bounds[1:] - 1], sums / np.diff(bounds))
