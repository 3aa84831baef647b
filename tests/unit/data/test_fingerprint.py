"""The data's fingerprint: that of what a run sees, whatever else about the encoding changes."""

import hashlib
import struct
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.fingerprint import _CHUNK_TOKENS, fingerprint
from galpaca.data.receipt import Receipt

IDS = [[5, 6, 7, 2], [9, 2], [7, 7, 7], [300, 4, 2]]
IGNORED = [2, 0, 3, 1]  # of the second, nothing predicts the first token; the third has no target
HELD_OUT = [False, True, False, False]


def examples(ids: list[list[int]] = IDS, ignored: list[int] = IGNORED) -> EncodedExamples:
    return EncodedExamples(
        tokens=np.array([token for one in ids for token in one], np.uint16),
        offsets=np.array([0, *accumulate(map(len, ids))], np.int64),
        **spans_behind(ignored, list(map(len, ids))),
        content_hashes=np.arange(len(ids), dtype=np.uint64),
        prompt_hashes=np.arange(len(ids), dtype=np.uint64),
        near_hashes=np.arange(len(ids), dtype=np.uint64),
        record_indices=np.arange(len(ids), dtype=np.int32),
        receipt=Receipt(source="a.json", max_length=512, records=len(ids)),
    )


BEGUN = fingerprint(examples(), np.array(HELD_OUT))


def test_it_is_what_its_docstring_says() -> None:
    """Byte by byte, since it is compared with what a run of any age has recorded."""
    numbers = [4, *map(len, IDS), *(1, 1, 0, 1), *(2, 1, 1), *(4, 2, 3)]  # how many, lengths, spans, starts, stops
    flat = [token for one in IDS for token in one]
    content = struct.pack(f"<{len(numbers)}q", *numbers) + bytes(HELD_OUT) + struct.pack(f"<{len(flat)}I", *flat)
    assert hashlib.sha256(content).hexdigest() == BEGUN


@pytest.mark.parametrize(
    ("ids", "ignored", "held_out"),
    [
        ([[5, 6, 8, 2], *IDS[1:]], IGNORED, HELD_OUT),
        ([[5, 6, 7], [2, 9, 2], *IDS[2:]], [1, 1, 3, 1], HELD_OUT),
        (IDS, [1, 0, 3, 1], HELD_OUT),
        (IDS[::-1], IGNORED[::-1], HELD_OUT[::-1]),
        (IDS[:3], IGNORED[:3], HELD_OUT[:3]),
        (IDS, IGNORED, [False, False, True, False]),
    ],
    ids=["an id", "a boundary", "a target", "the order", "an example less", "the split"],
)
def test_what_a_run_sees_counts(ids: list[list[int]], ignored: list[int], held_out: list[bool]) -> None:
    assert fingerprint(examples(ids, ignored), np.array(held_out)) != BEGUN


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": examples().tokens.astype(np.uint32)},
        {"tokens": examples().tokens.astype(">u4")},
        {"offsets": examples().offsets.astype(np.uint32)},
        {"spans": examples().spans.astype(np.int64)},
        {"span_offsets": examples().span_offsets.astype(np.int32)},
        {"content_hashes": np.zeros(4, np.uint64), "record_indices": np.zeros(4, np.int32)},
        {"receipt": Receipt(source="b.json", max_length=256, records=5)},
    ],
    ids=["wider ids", "another byte order", "offsets", "wider spans", "narrower offsets of spans", "origin", "receipt"],
)
def test_how_it_is_kept_does_not_count(changes: dict[str, Any]) -> None:
    """A new format of the cache refused every run."""
    assert fingerprint(replace(examples(), **changes), np.array(HELD_OUT)) == BEGUN


def test_ids_beyond_the_first_chunk_count() -> None:
    ids = [[1] * (_CHUNK_TOKENS + 2)]
    one = fingerprint(examples(ids, [1]), np.array([False]))
    ids[0][-1] = 2
    assert fingerprint(examples(ids, [1]), np.array([False])) != one
