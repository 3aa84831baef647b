"""Shares of several sources in an epoch: so many of each source's examples, in an order of its own."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Share:
    """What every epoch takes of one source.

    Attributes:
        name: name of the source, which decides its order together with the seed.
        indices: (N,) the source's examples among all.
        epochs: how often each of them is taken in an epoch: 2 takes all twice, 0.2 another fifth each time.
    """

    name: str
    indices: npt.NDArray[np.int64]
    epochs: float

    @property
    def num_taken(self) -> int:
        """Examples that an epoch takes, the same number each time."""
        return max(1, round(self.epochs * len(self.indices))) if len(self.indices) else 0

    def taken(self, epoch: int, seed: int) -> npt.NDArray[np.int64]:
        """(num_taken,) the examples of an epoch: the next ones of the source's own shuffles, one after the other."""
        start, stop = epoch * self.num_taken, (epoch + 1) * self.num_taken
        if start == stop:
            return self.indices[:0]
        first, last = start // len(self.indices), (stop - 1) // len(self.indices)
        rounds = np.concatenate([self._round(number, seed) for number in range(first, last + 1)])
        begin = start - first * len(self.indices)
        return rounds[begin : begin + self.num_taken]

    def _round(self, number: int, seed: int) -> npt.NDArray[np.int64]:
        own = int.from_bytes(hashlib.blake2b(f"{seed} {self.name}".encode(), digest_size=8).digest(), "little")
        return self.indices[shuffled(len(self.indices), own, number)]


def shuffled(count: int, seed: int, number: int) -> npt.NDArray[np.int64]:
    """(count,) a shuffle that depends on seed and number alone.

    Sorting by the raw output of a counter-based generator (Philox, whose stream NumPy guarantees) gives the same
    shuffle on every machine and in every version.
    """
    keys = np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(count)
    return np.argsort(keys, kind="stable")
