"""What ranks agree on: their answers travel with the figures of their steps, and cost no collective of their own."""

import signal
import time
from collections.abc import Callable
from typing import TypeVar

import torch.distributed
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from galpaca.runs.shutdown import Shutdown, signal_of

Value = TypeVar("Value")


def from_all_ranks(own: Value, num_ranks: int) -> list[Value]:
    """What each rank has. Called by all ranks together, which wait for each other."""
    if num_ranks == 1:
        return [own]
    everyone = [own] * num_ranks
    torch.distributed.all_gather_object(everyone, own)
    return everyone


class Poll:
    """A question that all ranks answer along with their figures.

    Args:
        answer: this rank's, at the time of the reading.

    Attributes:
        ranks: all ranks' answers at the last reading, the same on every rank; empty before the first.
    """

    def __init__(self, answer: Callable[[], float]) -> None:
        self.answer = answer
        self.ranks: list[float] = []


class Pace:
    """After how many steps (or validation batches) figures are read again: about once a second, and the same on all
    ranks.

    A read waits for the device, so quick steps share one. Slow steps must not: a signal is seen at a read, and a
    scheduler does not wait for eight steps of two minutes.

    Args:
        most: never more than this.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.seconds = Poll(self._seconds_each)
        self._taken, self._wanted, self._since = 0, 1, time.monotonic()

    def due(self) -> bool:
        """Called at each step; True when it is time."""
        self._taken += 1
        return self._taken >= self._wanted

    def restart(self) -> None:
        """After a read, after which all ranks know how long the first rank's steps take."""
        each = self.seconds.ranks[0]
        self._wanted = max(1, min(self.most, int(1 / each) if each > 0 else self.most))
        self._taken, self._since = 0, time.monotonic()

    def _seconds_each(self) -> float:
        return (time.monotonic() - self._since) / max(1, self._taken)


class Consensus:
    """Questions that all ranks answer, and what follows from the answers on every rank alike.

    Args:
        shutdown: the flag of this process.
        every_steps: most steps between two readings; one waits for the device.

    Attributes:
        pace: of the readings.
    """

    def __init__(self, shutdown: Shutdown, every_steps: int = 1) -> None:
        self.shutdown = shutdown
        self.pace = Pace(every_steps)
        self._urgency = Poll(lambda: self.shutdown.urgency)
        self._polls = [self._urgency, self.pace.seconds]

    def poll(self, answer: Callable[[], float]) -> Poll:
        """One more poll, answered at every reading from now on. All ranks add the same ones in the same order."""
        poll = Poll(answer)
        self._polls.append(poll)
        return poll

    def gather(self, strategy: Strategy, figures: Tensor) -> Tensor:
        """Reads all ranks' figures, and along with them all ranks' answers. Called by all ranks at the same step.

        Args:
            figures: (F,) float64 of this rank, on its device.

        Returns:
            (R, F) of R ranks, on the host.
        """
        answers = figures.new_tensor([float(poll.answer()) for poll in self._polls])
        ranks = strategy.all_gather(torch.cat([answers, figures])).reshape(-1, len(answers) + len(figures)).cpu()
        for column, poll in enumerate(self._polls):
            poll.ranks = ranks[:, column].tolist()
        self.pace.restart()
        return ranks[:, len(answers) :]

    @property
    def agreed_stop(self) -> signal.Signals | None:
        """The strongest signal that any rank got, as far as ranks have shared them."""
        urgency = max(self._urgency.ranks, default=0)
        return signal_of(urgency) if urgency else None
