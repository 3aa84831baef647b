"""When figures are read: a signal is seen then, and a scheduler does not wait."""

import time

import pytest

from galpaca.training.metrics import Pace


def reads(seconds_each: float, steps: int, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps after which figures are read, by the clock of a run with such steps."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace, found = Pace(most), []
    for step in range(1, steps + 1):
        now += seconds_each
        if pace.due():
            pace.seconds.ranks = [pace.seconds.answer()]
            pace.restart()
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("seconds_each", "expected"),
    [(0.01, [1, 9, 17]), (0.25, [1, 5, 9, 13, 17]), (0.6, list(range(1, 19))), (140.0, list(range(1, 19)))],
)
def test_about_once_a_second(seconds_each: float, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight steps of 140 seconds are nineteen minutes, and the warning comes three minutes before the end."""
    assert reads(seconds_each, 18, 8, monkeypatch) == expected


def test_all_ranks_take_the_first_ranks_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that read at different steps would wait for each other in different places."""
    pace = Pace(8)
    assert pace.due()
    pace.seconds.ranks = [0.5, 0.001]
    pace.restart()
    assert [pace.due() for _ in range(2)] == [False, True]
