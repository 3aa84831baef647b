"""A whole data set, encoded, with a count of whatever happened to its records."""

import copy
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from galpaca.data.encoding import Encoding, RecordEncoder
from galpaca.data.examples import EncodedExamples, running_totals
from galpaca.data.findings import Findings
from galpaca.data.hashes import content_hash, near_hash, prompt_hash
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.prompting import Prompting
from galpaca.data.receipt import Receipt
from galpaca.data.records import Record, RecordSet
from galpaca.data.scripts import HARMLESS, Scripts, changes_of
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.text_findings import (
    ADVICE,
    CONTROL_CHARACTERS,
    EMPTY_INSTRUCTIONS,
    EMPTY_OUTPUTS,
    ENDS_WITHIN,
    SPECIAL_TOKENS,
    SpecialTexts,
    findings_of,
)
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError, InputErrors, Problems

# Raised whenever the same records would give other ids, or the arrays another meaning.
FORMAT_VERSION = 3

# Records encoded at a time: enough to keep every core busy, few enough for a lively progress bar.
_CHUNK_RECORDS = 2_000


def encode(
    record_set: RecordSet,
    tokenizer: Tokenizer,
    template: Prompting,
    policy: EncodingPolicy,
    progress: Callable[[int], None] = lambda _: None,
    scripts: Scripts = "keep",
) -> EncodedExamples:
    """Encodes a whole data set and counts what happened to its records.

    Args:
        scripts: as for ``RecordEncoder``.
        policy: what becomes of records that are not as they should be.
        progress: called with the number of records done so far.

    Raises:
        InputError: a record that the policy refuses or the template cannot write (all of them at once), or no target
            token at all.
    """
    encoder = RecordEncoder(tokenizer, template, scripts)
    receipt = Receipt(
        source=record_set.source,
        max_length=policy.max_length,
        records=len(record_set),
        conversations=sum(len(record.turns) > 1 for record in record_set.records),
        ignored_columns=record_set.ignored_columns,
        hints=list(record_set.hints),
    )
    special = _special_texts(tokenizer, template)
    own_hashes: list[int] = []
    findings = copy.deepcopy(record_set.findings)
    problems = Problems()
    dropped: Counter[str] = Counter()
    kept = _Kept(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    for start, chunk, encodings in _encoded(encoder, record_set, policy.max_length):
        for index, (record, encoding) in enumerate(zip(chunk, encodings, strict=True), start):
            own_hashes.append(content_hash(record))
            found = [
                *findings_of(record, special),
                *_rewritten(tokenizer, [encoder.written(text) for text in record.texts()]),
            ]
            for name in found:
                if name != ENDS_WITHIN:  # such a record is refused, or dropped as one with a special token
                    findings.note(name, index)
            refusals = _refusals(found, encoding, policy)
            for refusal in (refusal for refusal in refusals if refusal.policy == "error"):
                fix = f"{refusal.option}={refusal.instead}"
                problems.add(refusal.what, where=record_set.where(index), why=refusal.why, fix=fix)
            if "drop" in (refusal.policy for refusal in refusals):
                dropped[next(refusal.reason for refusal in refusals if refusal.policy == "drop")] += 1
            else:
                _count_example(receipt, findings, index, encoding)
                kept.add(index, record, encoding)
        kept.pack()
        progress(start + len(chunk))
    problems.raise_any()
    receipt.duplicates = len(own_hashes) - len(set(own_hashes))
    receipt.dropped = dict(dropped)
    receipt.examples = len(kept.indices)
    for name, count in findings.counts.items():
        setattr(receipt, name, count)
    receipt.first = {name: record_set.places.short(index) for name, index in findings.first.items()}
    if not receipt.target_tokens:
        raise InputError(
            "the data has no target token",
            where=record_set.source,
            why=_why_no_target(receipt),
            fix="raise data.max_length, or use records with outputs",
        )
    return kept.examples(own_hashes if record_set.groups is None else record_set.groups, receipt)


def _encoded(
    encoder: RecordEncoder, record_set: RecordSet, max_length: int
) -> Iterator[tuple[int, Sequence[Record], list[Encoding]]]:
    """Chunks of records, each with the index of its first. The next one is being encoded while one is looked at:
    tokenizing needs no lock of Python's.

    Raises:
        InputError: records that the template cannot write.
    """
    records = record_set.records

    def encoded(start: int) -> tuple[int, Sequence[Record], list[Encoding]]:
        chunk = records[start : start + _CHUNK_RECORDS]
        return start, chunk, list(encoder.encode(chunk, max_length))

    with _naming_records(encoder, record_set), ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(encoded, 0)
        for start in range(_CHUNK_RECORDS, len(records), _CHUNK_RECORDS):
            chunk, coming = coming, pool.submit(encoded, start)
            yield chunk.result()
        yield coming.result()


@contextmanager
def _naming_records(encoder: RecordEncoder, record_set: RecordSet) -> Iterator[None]:
    """Where the template cannot write records, says so of all of them: what it is, and which record is the first."""
    try:
        yield
    except (InputError, InputErrors) as error:
        first: dict[str, tuple[InputError, int]] = {}
        for index, record in enumerate(record_set.records):
            for one in _unwritten(encoder, record):
                first.setdefault(one.what, (one, index))
        if not first:
            raise error
        with Problems() as problems:
            for one, index in first.values():
                why = "; ".join(filter(None, (f"the first such record is {record_set.where(index)}", one.why)))
                problems.add(one.what, where=one.where, why=why, fix=one.fix)


def _unwritten(encoder: RecordEncoder, record: Record) -> Sequence[InputError]:
    try:
        encoder.texts(record)
    except InputErrors as error:
        return error.problems
    except InputError as error:
        return [error]
    return []


def _special_texts(tokenizer: Tokenizer, template: Prompting) -> SpecialTexts:
    """What is to be found in records; of a chat template, also where its answers would end."""
    end = template.end_text
    if end is None:
        return SpecialTexts.of(tokenizer.special_texts, tokenizer.end_text)
    others = tokenizer.special_texts.intersection(tokenizer.pieces(tokenizer.end_ids))
    return SpecialTexts.of(tokenizer.special_texts, end, ends={end, *others})


class _Kept:
    """The examples so far, in arrays: lists of a million examples' ids would take ten times the room."""

    def __init__(self, dtype: type[np.unsignedinteger]) -> None:
        self.indices: list[int] = []
        self._dtype = dtype
        self._packed: list[np.ndarray] = []
        self._ids: list[int] = []
        self._lengths, self._prompt_hashes, self._near_hashes = array("q"), array("Q"), array("Q")
        self._spans, self._num_spans = array("i"), array("q")

    def add(self, index: int, record: Record, encoding: Encoding) -> None:
        self.indices.append(index)
        self._ids += encoding.ids
        self._lengths.append(len(encoding.ids))
        for span in encoding.spans:
            self._spans.extend(span)
        self._num_spans.append(len(encoding.spans))
        self._prompt_hashes.append(prompt_hash(record))
        self._near_hashes.append(near_hash(record))

    def pack(self) -> None:
        """Makes an array of the ids that were added last."""
        self._packed.append(np.asarray(self._ids, self._dtype))
        self._ids = []

    def examples(self, hashes: Sequence[int], receipt: Receipt) -> EncodedExamples:
        return EncodedExamples(
            tokens=np.concatenate(self._packed),
            offsets=running_totals(self._lengths),
            spans=np.asarray(self._spans, np.int32).reshape(-1, 2),
            span_offsets=running_totals(self._num_spans),
            content_hashes=np.asarray([hashes[index] for index in self.indices], np.uint64),
            prompt_hashes=np.asarray(self._prompt_hashes, np.uint64),
            near_hashes=np.asarray(self._near_hashes, np.uint64),
            record_indices=np.asarray(self.indices, np.int32),
            receipt=receipt,
        )


def _why_no_target(receipt: Receipt) -> str:
    if receipt.examples:
        return f"the prompts of all {receipt.examples:,} examples fill the context of {receipt.max_length:,} tokens"
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in receipt.dropped.items())
    return f"all {receipt.records:,} records were dropped: {reasons}"


def _rewritten(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[str]:
    """Names of what the tokenizer does to texts that a person may not want."""
    changed = [text for text in texts if tokenizer.changes(text)]
    if changed:
        yield "changed_by_normalization"
        yield from sorted(set().union(*(changes_of(text) or {HARMLESS} for text in changed)))
    if tokenizer.splits_sequences and any(SPLIT_MARKER in text for text in texts):
        yield "with_split_marker"
    if any(tokenizer.leaves_open(text) for text in texts):
        yield "open_sequences"


class _Refusal(NamedTuple):
    policy: Policy
    option: str
    reason: str
    what: str
    why: str = ""
    instead: str = "keep or drop"


def _refusals(found: Sequence[str], encoding: Encoding, policy: EncodingPolicy) -> list[_Refusal]:
    """What a policy may object to in a record, in the order in which a dropped record gets its reason."""
    policies = {
        EMPTY_OUTPUTS: (policy.on_empty, "data.on_empty", "empty output"),
        EMPTY_INSTRUCTIONS: (policy.on_empty_instruction, "data.on_empty_instruction", "empty instruction"),
        SPECIAL_TOKENS: (policy.on_special_tokens, "data.on_special_tokens", "special tokens"),
        CONTROL_CHARACTERS: (policy.on_control_characters, "data.on_control_characters", "control characters"),
    }
    objections = [
        _Refusal(*policies[name], f"the record has {ADVICE[name][0]}", ADVICE[name][1])
        for name in found
        if name in policies
    ]
    if ENDS_WITHIN in found and policy.on_special_tokens != "drop":  # no one means what would be trained
        what, why = ADVICE[ENDS_WITHIN]
        instead = "drop; or write it differently in the file"
        option = "data.on_special_tokens"
        objections.append(_Refusal("error", option, "", f"the record has {what}", why, instead))
    if encoding.is_truncated:
        what = f"{encoding.full_length:,} tokens; truncation drops {encoding.lost_target_tokens:,} of its target tokens"
        objections.append(_Refusal(policy.on_truncation, "data.on_truncation", "longer than max_length", what))
    return objections


def _count_example(receipt: Receipt, findings: Findings, index: int, encoding: Encoding) -> None:
    receipt.tokens += len(encoding.ids)
    receipt.target_tokens += encoding.num_targets
    receipt.longest_tokens = max(receipt.longest_tokens, len(encoding.ids))
    if not encoding.spans:
        findings.note("without_target", index)
    if encoding.is_merged:
        findings.note("merged_prompts", index)
    if encoding.is_truncated:
        receipt.truncated_examples += 1
        receipt.lost_target_tokens += encoding.lost_target_tokens
        receipt.lost_turns += encoding.lost_turns
