"""Hashes of records: the same on every machine, for ever."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from galpaca.data.records import Record

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_TAG = re.compile(r"\[(?:START|END)_[A-Z0-9_]+\]")


def content_hash(record: Record) -> int:
    """Of the record's texts: it decides the side of a split."""
    texts = [text for turn in record.turns for text in turn]
    if record.system:
        texts.append(record.system)
    return _hash("\0".join(texts))


def prompt_hash(record: Record) -> int:
    """Of everything ahead of the last answer, tags of sequences left out."""
    *earlier, last = record.turns
    texts = [record.system, *(text for turn in earlier for text in turn), last.instruction, last.input]
    return _hash(_TAG.sub("", "\0".join(texts)))


def near_hash(record: Record) -> int:
    """Equal for records that differ in spaces, in tags of sequences, in the punctuation behind words or in the case of
    words. What has other characters than letters is no word but a formula, and counts as it is: ``C1CCCCC1`` is not
    ``c1ccccc1``, and -1 is not 1.
    """
    return _hash("\0".join(" ".join(_folded_words(_TAG.sub("", text))) for text in record.texts()))


def _folded_words(text: str) -> Iterator[str]:
    for word in text.split():
        if bare := word.strip(".,;:!?\"'"):
            yield bare.casefold() if _WORD.fullmatch(bare) else bare


def value_hash(value: Any) -> int:
    """Of a column's value, by which records are split. Surrounding space does not count, and a whole number is one
    number in every kind of file: tables with gaps have 2 as 2.0.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _hash(f"value\0{str(value).strip()}")


def _hash(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
