"""A validation split that is a property of each record, not of its place in the file."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galpaca.data.examples import EncodedExamples

_HASH_RANGE = 2.0**64


def is_validation(content_hashes: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    """Which examples are held out: those whose content hash lies in the first ``fraction`` of its range.

    Duplicates share a hash and so never straddle the split, and adding records moves none of the others.

    Args:
        content_hashes: (N,) 64 bits of each record's content.
        fraction: expected share of the records, from 0 to below 1.
    """
    return content_hashes < np.float64(fraction * _HASH_RANGE) if fraction else np.zeros(len(content_hashes), bool)


@dataclass(frozen=True)
class SplitExamples:
    """All encoded examples, and which of them are for what.

    Attributes:
        train, val: (N,) indices of the examples to train on, and of those held out.
    """

    examples: EncodedExamples
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
