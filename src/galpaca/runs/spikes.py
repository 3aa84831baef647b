"""Detection of loss spikes."""

from collections import deque
from collections.abc import Iterable
from statistics import median

_WINDOW = 50
_FEWEST = 10  # before which nothing is usual yet
_LEAST_NATS = 0.1  # below which a jump says nothing: losses near 0 double all the time


class LossSpikes:
    """Finds which losses are spikes, by the median of those just before.

    Args:
        factor: a loss above this many times the median, and at least 0.1 above it, is a spike; None disables detection.
        before: losses of earlier steps, so that a resumed run flags the same ones.
    """

    def __init__(self, factor: float | None, before: Iterable[float] = ()) -> None:
        self.factor = factor
        self._window = deque(before, maxlen=_WINDOW)

    def add(self, loss: float) -> bool:
        """Takes the next loss and says whether it is a spike."""
        usual = median(self._window) if len(self._window) >= _FEWEST else None
        self._window.append(loss)
        return self.factor is not None and usual is not None and loss > max(self.factor * usual, usual + _LEAST_NATS)
