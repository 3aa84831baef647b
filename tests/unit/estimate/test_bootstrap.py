"""Intervals of the bootstrap, against all draws there are and against a plain loop."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from galpaca.estimate.bootstrap import Estimate, paired_bootstrap

NLL = [[4.0, 1.0, 7.0, 2.0, 6.0], [3.0, 1.5, 5.0, 2.5, 4.0]]
TOKENS = [[2.0, 1.0, 3.0, 4.0, 2.0], [2.0, 1.0, 3.0, 4.0, 2.0]]


def quantile(values: list[float], share: float) -> float:
    """Between two of the sorted values, by their distance."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def mean(numerators: Sequence[float], denominators: Sequence[float], drawn: tuple[int, ...]) -> float:
    return sum(numerators[i] for i in drawn) / sum(denominators[i] for i in drawn)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_intervals_are_those_of_all_draws_there_are() -> None:
    """Five records can be drawn in 3,125 ways."""
    ways = list(itertools.product(range(5), repeat=5))
    found = paired_bootstrap(NLL, TOKENS, num_resamples=100_000)
    assert found is not None
    for m in range(2):
        means = [mean(NLL[m], TOKENS[m], way) for way in ways]
        assert found.means[m].value == mean(NLL[m], TOKENS[m], tuple(range(5)))
        assert found.means[m].low == pytest.approx(quantile(means, 0.025), abs=0.02)
        assert found.means[m].high == pytest.approx(quantile(means, 0.975), abs=0.02)
    differences = [mean(NLL[1], TOKENS[1], way) - mean(NLL[0], TOKENS[0], way) for way in ways]
    assert found.differences[1].low == pytest.approx(quantile(differences, 0.025), abs=0.02)
    assert found.differences[1].high == pytest.approx(quantile(differences, 0.975), abs=0.02)
    assert found.differences[0] == Estimate(0.0, 0.0, 0.0)


def test_a_plain_loop_finds_the_same() -> None:
    draw = random.Random(1)
    tokens = [draw.randint(1, 60) for _ in range(80)]
    hardness = [draw.gauss(2, 1) for _ in range(80)]
    nll = [[t * (h + shift + draw.gauss(0, 0.1)) for t, h in zip(tokens, hardness, strict=True)] for shift in (0, -0.1)]
    found = paired_bootstrap(nll, [tokens, tokens], num_resamples=4_000)
    assert found is not None
    drawn = [tuple(draw.randrange(80) for _ in range(80)) for _ in range(4_000)]
    differences = [mean(nll[1], tokens, one) - mean(nll[0], tokens, one) for one in drawn]
    assert found.differences[1].low == pytest.approx(quantile(differences, 0.025), abs=0.005)
    assert found.differences[1].high == pytest.approx(quantile(differences, 0.975), abs=0.005)
    # What the two have in common cancels: each of them alone is several times less sure.
    assert width(found.means[0]) > 5 * width(found.differences[1])
    assert found.differences[1].sign == "lower"


def test_weights_count_and_not_records() -> None:
    found = paired_bootstrap([[10.0, 10.0]], [[1.0, 9.0]])
    assert found is not None
    assert found.means[0].value == 2.0


def test_a_seed_decides_the_draws() -> None:
    assert paired_bootstrap(NLL, TOKENS, seed=3) == paired_bootstrap(NLL, TOKENS, seed=3)
    assert paired_bootstrap(NLL, TOKENS, seed=3) != paired_bootstrap(NLL, TOKENS, seed=4)


def test_draws_in_pieces_are_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paired_bootstrap(NLL, TOKENS, num_resamples=100)
    monkeypatch.setattr("galpaca.estimate.bootstrap._PIECE_NUMBERS", 35)
    assert paired_bootstrap(NLL, TOKENS, num_resamples=100) == whole


def test_one_record_has_no_interval_and_nothing_has_no_figure() -> None:
    found = paired_bootstrap([[3.0], [2.0]], [[2.0], [2.0]])
    assert found is not None
    assert found.differences[1] == Estimate(-0.5, None, None)
    assert found.differences[1].sign == "open"
    assert paired_bootstrap([[1.0, 2.0]], [[0.0, 0.0]]) is None
    assert paired_bootstrap(np.zeros((2, 0)), np.zeros((2, 0))) is None


def test_draws_of_no_weight_are_left_out() -> None:
    """Half of the draws of two records, one of them empty, have no mean."""
    found = paired_bootstrap([[1.0, 0.0]], [[1.0, 0.0]])
    assert found is not None
    assert (found.means[0].low, found.means[0].high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(-2.0, -1.0, "lower"), (1.0, 2.0, "higher"), (-1.0, 1.0, "open"), (0.0, 1.0, "open")]
)
def test_the_sign_is_that_of_the_whole_interval(low: float, high: float, sign: str) -> None:
    assert Estimate((low + high) / 2, low, high).sign == sign
