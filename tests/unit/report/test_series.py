"""Fewer points of a line: nothing that stands out is lost, and a mean counts tokens."""

from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpaca.report.series import Series, extremes, read_series, smoothed, stretch_means
from galpaca.runs.lines import StepLine


def series(values: list[float]) -> Series:
    return Series(np.arange(1.0, len(values) + 1), np.array(values))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 20))
def test_extremes_keep_ends_smallest_and_largest_of_every_stretch(values: list[float], stretches: int) -> None:
    whole, kept = series(values), extremes(series(values), stretches)
    assert len(kept) <= 2 * stretches + 2
    assert kept.values.min() == whole.values.min()
    assert kept.values.max() == whole.values.max()
    assert (kept.steps[0], kept.steps[-1]) == (1, len(values))
    assert (np.diff(kept.steps) > 0).all()
    assert kept.values.tolist() == [values[int(step) - 1] for step in kept.steps]


def test_one_spike_in_a_hundred_thousand_steps_is_drawn() -> None:
    values = np.ones(100_000)
    values[70_000] = 9.0
    kept = extremes(Series(np.arange(100_000.0), values))
    assert len(kept) <= 1202
    assert kept.steps[kept.values == 9.0].tolist() == [70_000.0]


def test_smoothing_weighs_each_step_by_its_tokens() -> None:
    # Of two steps that count alike in time, the one of 3 tokens counts three times as much as that of 1.
    found = smoothed(series([1.0, 5.0]), np.array([1.0, 3.0]), window=1e12)
    assert found.values[1] == pytest.approx((1 * 1 + 3 * 5) / 4)


def test_smoothing_has_no_bias_at_its_start() -> None:
    found = smoothed(series([4.0] * 50), np.ones(50), window=20)
    assert found.values == pytest.approx(np.full(50, 4.0))


def test_what_is_no_number_is_left_out() -> None:
    lines = [StepLine(step=step, loss=loss) for step, loss in ((1, 2.0), (2, None), (3, None), (4, 1.0))]
    found = read_series(lines, attrgetter("loss"))
    assert found.steps.tolist() == [1, 4]
    assert found.values.tolist() == [2.0, 1.0]


def test_means_of_stretches_keep_the_sum() -> None:
    values = [float(value) for value in range(1000)]
    found = stretch_means(series(values), 100)
    assert len(found) == 100
    assert (found.values * 10).sum() == pytest.approx(sum(values))
