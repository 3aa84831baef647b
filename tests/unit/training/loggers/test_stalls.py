import pytest

from galpaca.training.loggers.sink import is_stall


@pytest.mark.parametrize(
    ("seconds", "earlier", "stalls"),
    [
        (10.0, [1.0] * 50, True),
        (9.9, [1.0] * 50, False),
        (10.0, [1.0] * 10, True),
        (10.0, [1.0] * 9, False),  # too few to tell
        (1.0, [0.001] * 50, False),  # nobody waits for a second
        (10.0, [5.0] * 100 + [1.0] * 50, True),  # of the last fifty
        (10.0, [1.0] * 45 + [60.0] * 5, True),  # a median, which earlier stalls do not move
    ],
)
def test_a_step_stalls_by_the_median_of_those_before(seconds: float, earlier: list[float], stalls: bool) -> None:
    assert is_stall(seconds, earlier) is stalls
