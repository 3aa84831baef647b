"""Hashes of records: the same on every machine, for ever."""

import hashlib
import re
from typing import Any

from galpaca.data.records import Record

_NO_WORD = re.compile(r"[\W_]+")


def content_hash(record: Record) -> int:
    """Of the record's texts: it decides the side of a split."""
    texts = [text for turn in record.turns for text in turn]
    if record.system:
        texts.append(record.system)
    return _hash("\0".join(texts))


def prompt_hash(record: Record) -> int:
    """Of everything ahead of the last answer."""
    *earlier, last = record.turns
    return _hash("\0".join([record.system, *(text for turn in earlier for text in turn), last.instruction, last.input]))


def near_hash(record: Record) -> int:
    """Of letters and digits alone, without case: equal for records that differ in spaces, punctuation or capitals."""
    return _hash("\0".join(_NO_WORD.sub("", text.casefold()) for text in record.texts()))


def value_hash(value: Any) -> int:
    """Of a column's value, by which records are split: surrounding space does not count."""
    return _hash(f"value\0{str(value).strip()}")


def _hash(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
