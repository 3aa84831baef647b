"""Encoded examples: the ids of all records end to end, and the spans of them that carry loss."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from galpaca.data.receipt import Receipt


@dataclass(frozen=True)
class EncodedExamples:
    """All examples of a data set, end to end.

    Attributes:
        tokens: ids of all examples, one after the other; memory-mapped where it comes from the cache.
        offsets: (N + 1,) int64; example ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
        spans: (S, 2) int32; start and stop of each span of targets, positions within its example, in order. No span
            is empty, and none begins at 0: nothing predicts a first token.
        span_offsets: (N + 1,) int64; the spans of example ``i`` are ``spans[span_offsets[i]:span_offsets[i + 1]]``.
        content_hashes: (N,) uint64 of what decides the side of the record in a split, by default its texts.
        prompt_hashes, near_hashes: (N,) uint64, as ``galpaca.data.hashes`` has them.
        record_indices: (N,) int32; the record that the example was made of.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int32]
    span_offsets: npt.NDArray[np.int64]
    content_hashes: npt.NDArray[np.uint64]
    prompt_hashes: npt.NDArray[np.uint64]
    near_hashes: npt.NDArray[np.uint64]
    record_indices: npt.NDArray[np.int32]
    receipt: Receipt

    def __len__(self) -> int:
        return len(self.record_indices)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each example."""
        return np.diff(self.offsets)

    @property
    def num_targets(self) -> npt.NDArray[np.int64]:
        """(N,) target tokens of each example."""
        sizes = self.spans[:, 1].astype(np.int64) - self.spans[:, 0]
        return np.diff(running_totals(sizes)[self.span_offsets])

    def called(self, source: str) -> "EncodedExamples":
        """The same examples from a source of another name."""
        return replace(self, receipt=replace(self.receipt, source=source))

    def ids(self, index: int) -> npt.NDArray[np.unsignedinteger]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def targets(self, index: int) -> npt.NDArray[np.int32]:
        """(K, 2) start and stop of the spans of one example."""
        return self.spans[self.span_offsets[index] : self.span_offsets[index + 1]]


def labels_of(examples: EncodedExamples, index: int) -> list[int]:
    """The ids of an example as ``transformers`` takes them for labels: -100 where there is no loss."""
    ids = examples.ids(index).tolist()
    labels = [-100] * len(ids)
    for start, stop in examples.targets(index).tolist():
        labels[start:stop] = ids[start:stop]
    return labels


def running_totals(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(N + 1,) the sum of the first i counts, for each i."""
    counts = np.asarray(counts)
    totals = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=totals[1:])
    return totals


def spans_behind(num_prompt_tokens: npt.ArrayLike, lengths: npt.ArrayLike) -> dict[str, Any]:
    """The arrays ``spans`` and ``span_offsets`` of examples that have one span: all that follows a prompt.

    Args:
        num_prompt_tokens: (N,) leading tokens of each example that carry no loss.
        lengths: (N,) tokens of each example.
    """
    starts, stops = np.maximum(num_prompt_tokens, 1), np.asarray(lengths)
    has_targets = starts < stops
    spans = np.stack([starts, stops], axis=1)[has_targets].astype(np.int32)
    return {"spans": spans, "span_offsets": running_totals(has_targets)}
