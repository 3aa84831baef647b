"""Hours of a run from a few of its steps, and the time to ask SLURM for."""

import pytest

from galpaca.estimate.duration import Pace, RunTime, StepTime, checkpoints_seconds, pace_of, time_to_ask


def step(tokens: int, *, extra: float = 0.0) -> StepTime:
    """A millisecond a token, and half a second for the update."""
    backward = tokens / 1000 + extra
    return StepTime(tokens, backward + 0.5, backward)


class TestPace:
    def test_steps_with_other_numbers_of_tokens_are_foretold(self) -> None:
        """The longest steps take more seconds than the mean one, and fewer updates a token."""
        pace = pace_of([[step(2000) for _ in range(10)]])
        assert pace is not None
        assert pace.tokens_per_second == pytest.approx(2000 / 2.5)
        assert pace.steps_seconds(num_steps=100, num_tokens=100_000) == pytest.approx(100 * 1.5)
        assert pace.warm_up_seconds == pytest.approx(0)

    def test_warm_up_is_left_out_of_the_pace_and_counted_once(self) -> None:
        """A minute of compilation, taken for speed, would make a run of an hour a run of four."""
        starts = [[step(1000, extra=60), step(1000, extra=2), *[step(1000)] * 8], [step(1000, extra=50)] * 2]
        pace = pace_of(starts)
        assert pace is not None
        assert pace.tokens_per_second == pytest.approx(1000 / 1.5)
        assert pace.warm_up_seconds == pytest.approx(62)

    def test_where_there_is_nothing_but_warm_up_it_is_the_pace(self) -> None:
        pace = pace_of([[step(1000)], [step(1000)]])
        assert pace is not None
        assert pace.tokens_per_second == pytest.approx(1000 / 1.5)

    def test_a_start_without_a_step(self) -> None:
        assert pace_of([[], [step(1000)] * 5]) == pace_of([[step(1000)] * 5])
        assert pace_of([[], []]) is None


def test_the_whole_is_the_sum_of_its_parts() -> None:
    assert RunTime(1, 2, 4, 8, 16, 32, 64).total == 127
    assert Pace(1, 0, 2, 0).steps_seconds(3, 1000) == 6


@pytest.mark.parametrize(
    ("number", "interval", "seconds"),
    [
        (0, 60, 0),
        (1, 60, 30),  # the last one alone
        (4, 60, 3 * 2 + 30),
        (4, 15, 3 * (2 + 5) + 30),  # written longer than it takes to the next
    ],
)
def test_checkpoints_hold_up_for_their_stalls_and_where_one_waits_for_the_one_before(
    number: int, interval: float, seconds: float
) -> None:
    assert checkpoints_seconds(number, interval, stall=2, write=20, last=30) == seconds


@pytest.mark.parametrize(
    ("seconds", "time"),
    [
        (0, "00:15:00"),
        (240, "00:15:00"),  # 5 minutes and 10
        (241, "00:30:00"),
        (3600, "01:30:00"),  # 75 and 10 minutes
        (7200, "02:45:00"),  # 150 and 10
        (80 * 3600, "100:15:00"),
    ],
)
def test_a_quarter_more_and_ten_minutes_up_to_a_quarter_of_an_hour(seconds: float, time: str) -> None:
    assert time_to_ask(seconds) == time
