"""Which records are for what: a property of each record, not of its place in the file."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galpaca.data.examples import EncodedExamples
from galpaca.data.receipt import Receipt
from galpaca.data.shares import Share

_HASH_RANGE = 2.0**64

# Sides of a split, as the fingerprint of the data has them.
TRAIN, VALIDATION, TEST = 0, 1, 2
SIDES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def sides_of(hashes: npt.NDArray[np.uint64], val_fraction: float, test_fraction: float = 0.0) -> npt.NDArray[np.uint8]:
    """(N,) the side of each example: validation for hashes in the first part of their range, test behind it.

    What shares a hash is never on two sides, and adding records moves none of the others.

    Args:
        hashes: (N,) 64 bits of each record's content, or of the value that it is split by.
        val_fraction, test_fraction: expected shares of the records, below 1 together.
    """
    sides = np.full(len(hashes), TRAIN, np.uint8)
    if test_fraction:
        sides[hashes < np.float64((val_fraction + test_fraction) * _HASH_RANGE)] = TEST
    if val_fraction:
        sides[hashes < np.float64(val_fraction * _HASH_RANGE)] = VALIDATION
    return sides


def least_fractions(hashes: npt.NDArray[np.uint64], *, with_test: bool) -> tuple[float, float] | None:
    """The smallest fractions for validation and for a test, in hundredths, with which each side has a hash, that of
    training too; None where there are too few hashes for it.

    Args:
        hashes: (N,) as ``sides_of`` takes them; at least one.
        with_test: there is to be a test; otherwise its fraction is 0.
    """
    # (K,) hundredths below which each hash lies.
    hundredths = np.unique(np.floor(100 * (np.unique(hashes) / _HASH_RANGE)).astype(int) + 1).tolist()
    if len(hundredths) < 2 + with_test:
        return None
    val, last = hundredths[0], hundredths[int(with_test)]
    return val / 100, (last - val) / 100


@dataclass(frozen=True)
class SourceExamples:
    """Examples of one of several sources.

    Attributes:
        first, count: its examples are those from ``first`` on, so many.
        epochs: how often each is taken in an epoch; 0 for records that are for validation alone.
        receipt: of its encoding.
    """

    name: str
    first: int
    count: int
    epochs: float
    receipt: Receipt

    def has(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(N,) which of these examples are its own."""
        return (indices >= self.first) & (indices < self.first + self.count)


@dataclass(frozen=True)
class SplitExamples:
    """All encoded examples, and which of them are for what.

    Attributes:
        train, val: indices of the examples to train on, and of those that are measured while training.
        sources: the sources that they come from; none where there is but one.
        test: indices of the examples that no part of training reads.
    """

    examples: EncodedExamples
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    sources: tuple[SourceExamples, ...] = ()
    test: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls, examples: EncodedExamples, sides: npt.NDArray[np.uint8], sources: tuple[SourceExamples, ...] = ()
    ) -> "SplitExamples":
        """The split that gives each example its side."""
        train, val, test = (np.flatnonzero(sides == side) for side in (TRAIN, VALIDATION, TEST))
        return cls(examples, train, val, sources, test)

    def shares(self) -> tuple[Share, ...]:
        """What an epoch takes of each source, as indices into ``train``."""
        taken = [one for one in self.sources if one.epochs]
        return tuple(Share(one.name, np.flatnonzero(one.has(self.train)), one.epochs) for one in taken)

    def val_parts(self) -> list[tuple[str, npt.NDArray[np.int64]]]:
        """Name and held-out examples of each source that has any; of one source, without a name."""
        if not self.sources:
            return [("", self.val)] if len(self.val) else []
        names = dict.fromkeys(one.name for one in self.sources)
        own = {name: np.zeros(len(self.val), bool) for name in names}
        for one in self.sources:
            own[one.name] |= one.has(self.val)
        return [(name, self.val[mask]) for name, mask in own.items() if mask.any()]

    def leaks(self) -> tuple[int, int]:
        """How many held-out examples have a prompt that is trained on, and how many nearly are a record that is."""
        held_out = np.concatenate([self.val, self.test])
        prompts, texts = self.examples.prompt_hashes, self.examples.near_hashes
        return (
            int(np.isin(prompts[held_out], prompts[self.train]).sum()),
            int(np.isin(texts[held_out], texts[self.train]).sum()),
        )
