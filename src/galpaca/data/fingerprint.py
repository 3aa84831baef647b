"""Fingerprints of a run's data: the same examples have the same one, however they are encoded, cached or stored."""

import hashlib

import numpy as np
import numpy.typing as npt

from galpaca.data.examples import EncodedExamples
from galpaca.data.prompting import BoundTemplate
from galpaca.data.reading import columns_of
from galpaca.data.receipt import Receipt
from galpaca.data.sources.table import Source
from galpaca.data.spec import DataSpec
from galpaca.data.tokenizer import Tokenizer
from galpaca.files.checksums import json_digest

# Tokens that are converted at a time: the ids of a million examples are not in memory twice.
_CHUNK_TOKENS = 1 << 20


def fingerprint(examples: EncodedExamples, sides: npt.NDArray[np.integer]) -> str:
    """SHA-256 of what a run sees of its data: lengths, targets and ids of all examples in order, and the split.

    Targets are hashed as spans, the longest that there are, with positions within the example: how many each example
    has, then all starts, then all stops. All numbers are little-endian: counts and positions of 8 bytes, ids of 4,
    flags of 1. This must never change, or no run resumes.

    Args:
        sides: (N,) what each example is for: 0 for training, 1 for validation, 2 for a test.
    """
    digest = hashlib.sha256()
    starts, stops = examples.spans.T
    for numbers in (np.array([len(examples)]), examples.lengths, np.diff(examples.span_offsets), starts, stops):
        digest.update(np.ascontiguousarray(numbers, "<i8").data)
    digest.update(sides.astype("u1").data)
    for start in range(0, len(examples.tokens), _CHUNK_TOKENS):
        digest.update(examples.tokens[start : start + _CHUNK_TOKENS].astype("<u4").data)
    return digest.hexdigest()


def former_fingerprint(
    spec: DataSpec, source: Source, template: BoundTemplate, tokenizer: Tokenizer, receipt: Receipt
) -> str:
    """The fingerprint that runs had until commit 51e9e50: of what their examples were made from.

    It was the key of the encoding cache. Whatever becomes of that key, this stays, or those runs are refused. Where
    the same records give other examples today, it says so instead, and the runs are refused for that reason.
    """
    if receipt.open_sequences:
        return f"{receipt.open_sequences} records have a sequence without an end tag, which is split up now"
    made_from = {"data": source.fingerprint, "tokenizer": tokenizer.fingerprint}
    made_from["template"] = template.former_fingerprint
    policy = {"max_length": spec.max_length, "on_empty": spec.on_empty, "on_cut": spec.on_truncation}
    return json_digest({**made_from, **policy, "columns": columns_of(spec.fields), "format_version": 1})
