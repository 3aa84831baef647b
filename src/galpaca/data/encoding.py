"""Records to token ids: prompt + answer + ``</s>`` as one text, loss on the answer and its ``</s>`` only."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from galpaca.data.prompts import Template
from galpaca.data.receipt import Receipt
from galpaca.data.records import Record, RecordSet
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError, Problems

Policy = Literal["keep", "drop", "error"]

# Raised whenever the same records would give other ids, or the arrays another meaning.
FORMAT_VERSION = 1

# Records encoded at a time: enough to keep every core busy, few enough for a lively progress bar.
_CHUNK_RECORDS = 2_000


class Encoder(Protocol):
    """What encoding needs of a tokenizer; ``Tokenizer`` implements it."""

    eos_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def mark(self, text: str, end: int | None = None) -> str: ...


class Prompting(Protocol):
    """What encoding needs of a template; ``Template`` implements it."""

    def prompt(self, instruction: str, input: str = "") -> str: ...


class Encoding(NamedTuple):
    """One record as the model sees it.

    Attributes:
        ids: token ids, truncated to ``max_length``.
        num_ignored: leading tokens without loss: those of the prompt.
        full_length: tokens before truncation.
        full_prompt_length: tokens of the prompt before truncation.
    """

    ids: list[int]
    num_ignored: int
    full_length: int
    full_prompt_length: int

    @property
    def lost_target_tokens(self) -> int:
        targets = self.full_length - self.full_prompt_length
        return targets - max(0, len(self.ids) - self.full_prompt_length)


@dataclass(frozen=True)
class EncodedExamples:
    """All examples of a data set, end to end.

    Attributes:
        tokens: ids of all examples, one after the other; memory-mapped where it comes from the cache.
        offsets: (N + 1,) int64; example ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
        num_ignored: (N,) int32; leading tokens without loss.
        content_hashes: (N,) uint64 of the record's three texts; decides the validation split.
        record_indices: (N,) int32; the record that the example was made of.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]
    num_ignored: npt.NDArray[np.int32]
    content_hashes: npt.NDArray[np.uint64]
    record_indices: npt.NDArray[np.int32]
    receipt: Receipt

    def __len__(self) -> int:
        return len(self.num_ignored)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each example."""
        return np.diff(self.offsets)

    @property
    def num_targets(self) -> npt.NDArray[np.int64]:
        """(N,) target tokens of each example. Nothing predicts a first token, so it is never one."""
        return np.maximum(self.lengths - np.maximum(self.num_ignored, 1), 0)

    def ids(self, index: int) -> npt.NDArray[np.unsignedinteger]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def encode_records(
    records: Sequence[Record], tokenizer: Encoder, template: Prompting, max_length: int
) -> Iterator[Encoding]:
    """Encodes records as the reference does: one text, truncated; as many tokens ignored as the prompt alone has."""
    prompts = [template.prompt(record.instruction, record.input) for record in records]
    texts = [prompt + record.output for prompt, record in zip(prompts, records, strict=True)]
    full = tokenizer.encode([tokenizer.mark(text) for text in texts])
    alone = tokenizer.encode([tokenizer.mark(text, len(prompt)) for text, prompt in zip(texts, prompts, strict=True)])
    for ids, prompt_ids in zip(full, alone, strict=True):
        ids.append(tokenizer.eos_id)
        truncated = ids[:max_length]
        yield Encoding(truncated, min(len(prompt_ids), len(truncated)), len(ids), min(len(prompt_ids), len(ids)))


@dataclass(frozen=True)
class EncodingPolicy:
    """What becomes of records that do not fit.

    Attributes:
        max_length: examples are truncated to this many tokens.
        on_empty: what to do with records whose output is empty.
        on_truncation: what to do with records longer than ``max_length``.
    """

    max_length: int
    on_empty: Policy = "keep"
    on_truncation: Policy = "keep"


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
    kept: list[Encoding] = []
    kept_indices: list[int] = []
    for start in range(0, len(record_set), _CHUNK_RECORDS):
        chunk = record_set.records[start : start + _CHUNK_RECORDS]
        for index, encoding in enumerate(encode_records(chunk, tokenizer, template, policy.max_length), start):
            record = record_set.records[index]
            _count_record(receipt, record, tokenizer)
            refusals = _refusals(record, encoding, policy)
            for refusal in (refusal for refusal in refusals if refusal.policy == "error"):
                problems.add(refusal.what, where=record_set.where(index), fix=f"{refusal.option}=keep or drop")
            if "drop" in (refusal.policy for refusal in refusals):
                dropped[next(refusal.reason for refusal in refusals if refusal.policy == "drop")] += 1
            else:
                _count_example(receipt, encoding)
                kept.append(encoding)
                kept_indices.append(index)
        progress(start + len(chunk))
    problems.raise_any()
    receipt.dropped = dict(dropped)
    receipt.examples = len(kept)
    if not receipt.target_tokens:
        raise InputError(
            "the data has no target token",
            where=record_set.source,
            why=_why_no_target(receipt),
            fix="raise data.max_length, or use records with outputs",
        )
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    return EncodedExamples(
        tokens=np.concatenate([np.asarray(encoding.ids, dtype) for encoding in kept]),
        offsets=np.cumsum([0, *(len(encoding.ids) for encoding in kept)], dtype=np.int64),
        num_ignored=np.asarray([encoding.num_ignored for encoding in kept], np.int32),
        content_hashes=np.asarray([hashes[index] for index in kept_indices], np.uint64),
        record_indices=np.asarray(kept_indices, np.int32),
        receipt=receipt,
    )


def content_hash(record: Record) -> int:
    """64 bits of BLAKE2b over the three texts: the same on every machine, for ever."""
    digest = hashlib.blake2b("\0".join(record).encode(), digest_size=8).digest()
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
    if not record.output:
        found.append(_Refusal(policy.on_empty, "data.on_empty", "empty output", "the output is empty"))
    if encoding.full_length > policy.max_length:
        what = f"{encoding.full_length:,} tokens; truncation drops {encoding.lost_target_tokens:,} of its target tokens"
        found.append(_Refusal(policy.on_truncation, "data.on_truncation", "longer than max_length", what))
    return found


def _count_record(receipt: Receipt, record: Record, tokenizer: Tokenizer) -> None:
    receipt.empty_outputs += not record.output
    receipt.changed_by_normalization += any(tokenizer.changes(text) for text in record)
    receipt.with_split_marker += tokenizer.splits_sequences and any(SPLIT_MARKER in text for text in record)


def _count_example(receipt: Receipt, encoding: Encoding) -> None:
    num_tokens = len(encoding.ids)
    receipt.tokens += num_tokens
    targets = max(0, num_tokens - max(1, encoding.num_ignored))
    receipt.target_tokens += targets
    receipt.without_target += targets == 0
    receipt.longest_tokens = max(receipt.longest_tokens, num_tokens)
    if encoding.full_length > num_tokens:
        receipt.truncated_examples += 1
        receipt.lost_target_tokens += encoding.lost_target_tokens
