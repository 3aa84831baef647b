"""Fingerprints of a run's data: the same examples have the same one, however they are encoded, cached or stored."""

import hashlib

import numpy as np
import numpy.typing as npt

from galpaca.data.encoding import EncodedExamples
from galpaca.data.prompts import Template
from galpaca.data.records import columns_of
from galpaca.data.sources import Source
from galpaca.data.spec import DataSpec
from galpaca.data.tokenizer import Tokenizer
from galpaca.files.checksums import json_digest

# Tokens that are converted at a time: the ids of a million examples are not in memory twice.
_CHUNK_TOKENS = 1 << 20


def fingerprint(examples: EncodedExamples, held_out: npt.NDArray[np.bool_]) -> str:
    """SHA-256 of what a run sees of its data: lengths, targets and ids of all examples in order, and the split.

    Targets are hashed as spans, the longest that there are, with positions within the example. All numbers are
    little-endian: counts and positions of 8 bytes, ids of 4, flags of 1. This must never change, or no run resumes.

    Args:
        held_out: (N,) whether an example is for validation.
    """
    digest = hashlib.sha256()
    lengths, num_targets = examples.lengths, examples.num_targets
    has_targets = num_targets > 0
    stops = lengths[has_targets]
    for numbers in (np.array([len(examples)]), lengths, has_targets, stops - num_targets[has_targets], stops):
        digest.update(numbers.astype("<i8").data)
    digest.update(held_out.astype("u1").data)
    for start in range(0, len(examples.tokens), _CHUNK_TOKENS):
        digest.update(examples.tokens[start : start + _CHUNK_TOKENS].astype("<u4").data)
    return digest.hexdigest()


def former_fingerprint(spec: DataSpec, source: Source, template: Template, tokenizer: Tokenizer) -> str:
    """The fingerprint that runs had until commit 51e9e50: of what their examples were made from.

    It was the key of the encoding cache. Whatever becomes of that key, this stays, or those runs are refused.
    """
    made_from = {"data": source.fingerprint, "tokenizer": tokenizer.fingerprint, "template": template.fingerprint}
    policy = {"max_length": spec.max_length, "on_empty": spec.on_empty, "on_cut": spec.on_truncation}
    return json_digest({**made_from, **policy, "columns": columns_of(spec.fields), "format_version": 1})
