"""A whole data set, encoded, with a count of whatever happened to its records."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from galpaca.data.encoding import Encoding, RecordEncoder
from galpaca.data.examples import EncodedExamples, running_totals
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.prompts import Template
from galpaca.data.receipt import Receipt
from galpaca.data.records import Record, RecordSet
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError, Problems

# Raised whenever the same records would give other ids, or the arrays another meaning.
FORMAT_VERSION = 2

# Records encoded at a time: enough to keep every core busy, few enough for a lively progress bar.
_CHUNK_RECORDS = 2_000


def encode(
    record_set: RecordSet,
    tokenizer: Tokenizer,
    template: Template,
    policy: EncodingPolicy,
    progress: Callable[[int], None] = lambda _: None,
) -> EncodedExamples:
    """Encodes a whole data set and counts what happened to its records.

    Args:
        policy: what becomes of records that do not fit.
        progress: called with the number of records done so far.

    Raises:
        InputError: a record that the policy refuses (all of them at once), or no target token at all.
    """
    receipt = Receipt(
        source=record_set.source,
        max_length=policy.max_length,
        records=len(record_set),
        ignored_columns=record_set.ignored_columns,
    )
    hashes = [content_hash(record) for record in record_set.records]
    seen = Counter(hashes)
    receipt.duplicates = len(hashes) - len(seen)
    problems = Problems()
    dropped: Counter[str] = Counter()
    encoder = RecordEncoder(tokenizer, template)
    kept = _Kept(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    for start in range(0, len(record_set), _CHUNK_RECORDS):
        chunk = record_set.records[start : start + _CHUNK_RECORDS]
        for index, encoding in enumerate(encoder.encode(chunk, policy.max_length), start):
            record = record_set.records[index]
            _count_record(receipt, record, tokenizer)
            refusals = _refusals(record, encoding, policy)
            for refusal in (refusal for refusal in refusals if refusal.policy == "error"):
                problems.add(refusal.what, where=record_set.where(index), fix=f"{refusal.option}=keep or drop")
            if "drop" in (refusal.policy for refusal in refusals):
                dropped[next(refusal.reason for refusal in refusals if refusal.policy == "drop")] += 1
            else:
                _count_example(receipt, encoding)
                kept.add(index, encoding)
        progress(start + len(chunk))
    problems.raise_any()
    receipt.dropped = dict(dropped)
    receipt.examples = len(kept.indices)
    if not receipt.target_tokens:
        raise InputError(
            "the data has no target token",
            where=record_set.source,
            why=_why_no_target(receipt),
            fix="raise data.max_length, or use records with outputs",
        )
    return kept.examples([hashes[index] for index in kept.indices], receipt)


class _Kept:
    """The examples so far, in arrays: a list of a million examples' ids would take ten times the room."""

    def __init__(self, dtype: type[np.unsignedinteger]) -> None:
        self.indices: list[int] = []
        self._dtype = dtype
        self._ids: list[np.ndarray] = []
        self._spans: list[tuple[int, int]] = []
        self._num_spans: list[int] = []

    def add(self, index: int, encoding: Encoding) -> None:
        self.indices.append(index)
        self._ids.append(np.asarray(encoding.ids, self._dtype))
        self._spans += encoding.spans
        self._num_spans.append(len(encoding.spans))

    def examples(self, content_hashes: list[int], receipt: Receipt) -> EncodedExamples:
        return EncodedExamples(
            tokens=np.concatenate(self._ids),
            offsets=running_totals([len(ids) for ids in self._ids]),
            spans=np.asarray(self._spans, np.int32).reshape(-1, 2),
            span_offsets=running_totals(self._num_spans),
            content_hashes=np.asarray(content_hashes, np.uint64),
            record_indices=np.asarray(self.indices, np.int32),
            receipt=receipt,
        )


def content_hash(record: Record) -> int:
    """64 bits of BLAKE2b over the record's texts: the same on every machine, for ever."""
    texts = [text for turn in record.turns for text in turn]
    if record.system:
        texts.append(record.system)
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _why_no_target(receipt: Receipt) -> str:
    if receipt.examples:
        return f"the prompts of all {receipt.examples:,} examples fill the context of {receipt.max_length:,} tokens"
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in receipt.dropped.items())
    return f"all {receipt.records:,} records were dropped: {reasons}"


class _Refusal(NamedTuple):
    policy: Policy
    option: str
    reason: str
    what: str


def _refusals(record: Record, encoding: Encoding, policy: EncodingPolicy) -> list[_Refusal]:
    found = []
    if not all(turn.output for turn in record.turns):
        found.append(_Refusal(policy.on_empty, "data.on_empty", "empty output", "the output is empty"))
    if encoding.full_length > policy.max_length:
        what = f"{encoding.full_length:,} tokens; truncation drops {encoding.lost_target_tokens:,} of its target tokens"
        found.append(_Refusal(policy.on_truncation, "data.on_truncation", "longer than max_length", what))
    return found


def _count_record(receipt: Receipt, record: Record, tokenizer: Tokenizer) -> None:
    receipt.empty_outputs += not all(turn.output for turn in record.turns)
    receipt.changed_by_normalization += any(tokenizer.changes(text) for text in record.texts())
    receipt.with_split_marker += tokenizer.splits_sequences and any(SPLIT_MARKER in text for text in record.texts())
    receipt.open_sequences += any(tokenizer.leaves_open(text) for text in record.texts())


def _count_example(receipt: Receipt, encoding: Encoding) -> None:
    receipt.tokens += len(encoding.ids)
    receipt.target_tokens += encoding.num_targets
    receipt.without_target += not encoding.spans
    receipt.longest_tokens = max(receipt.longest_tokens, len(encoding.ids))
    receipt.merged_prompts += encoding.is_merged
    if encoding.is_truncated:
        receipt.truncated_examples += 1
        receipt.lost_target_tokens += encoding.lost_target_tokens
        receipt.lost_turns += encoding.lost_turns
