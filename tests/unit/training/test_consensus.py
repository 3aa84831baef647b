"""What ranks agree on, and when: a signal is seen at a reading, and a scheduler does not wait."""

import signal
import time
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from galpaca.runs.shutdown import Shutdown
from galpaca.training.consensus import Consensus, Pace


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


class _TwoRanks:
    """A strategy whose other rank answers as it is set to."""

    def __init__(self, other: list[float]) -> None:
        self.other, self.num_collectives = torch.tensor(other, dtype=torch.float64), 0

    def all_gather(self, local: Tensor) -> Tensor:
        self.num_collectives += 1
        return torch.stack([local, self.other])


def gathered(consensus: Consensus, strategy: _TwoRanks, figures: list[float]) -> list[list[float]]:
    return consensus.gather(cast(Any, strategy), torch.tensor(figures, dtype=torch.float64)).tolist()


def test_answers_travel_with_the_figures() -> None:
    """A collective of their own would be one more wait for all ranks in each reading."""
    shutdown = Shutdown()
    consensus = Consensus(shutdown)
    written = consensus.poll(lambda: 30)
    assert consensus.agreed_stop is None
    assert written.ranks == []
    strategy = _TwoRanks([2, 0.5, 20, 4.0, 5.0])  # urgency, seconds of a step, the question, two figures
    assert gathered(consensus, strategy, [1.0, 2.0]) == [[1.0, 2.0], [4.0, 5.0]]
    assert written.ranks == [30, 20]
    assert consensus.agreed_stop == signal.SIGUSR1, "no signal came to this rank"
    assert strategy.num_collectives == 1


def test_the_strongest_signal_of_all_ranks_counts() -> None:
    shutdown = Shutdown()
    consensus = Consensus(shutdown)
    shutdown.urgency = 3
    gathered(consensus, _TwoRanks([1, 0.5]), [])
    assert consensus.agreed_stop == signal.SIGINT
