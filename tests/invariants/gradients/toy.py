"""A toy model and examples that every process makes alike."""

from typing import Any

import numpy as np
from families import PLAIN_OPT, Sizes, Tiny

from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.receipt import Receipt

VOCABULARY, PAD = 61, 1
STEP_EXAMPLES = 20
# The second step has one example, fewer than there are ranks.
NUM_EXAMPLES = STEP_EXAMPLES + 1
NUM_STEPS = 2
SEED = 5


def make_model(tiny: Tiny = PLAIN_OPT) -> Any:
    """Ready for packed examples, of three layers."""
    sizes = Sizes(vocabulary=VOCABULARY, hidden=16, ffn=32, layers=3, heads=2)
    return tiny.model(sizes, std=0.2)


def make_examples() -> EncodedExamples:
    generator = np.random.default_rng(3)
    lengths = generator.integers(2, 40, NUM_EXAMPLES)
    offsets = np.cumsum([0, *lengths])
    return EncodedExamples(
        tokens=generator.integers(3, VOCABULARY, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        **spans_behind([generator.integers(0, length) for length in lengths], lengths),
        content_hashes=np.zeros(NUM_EXAMPLES, np.uint64),
        prompt_hashes=np.arange(NUM_EXAMPLES, dtype=np.uint64),
        near_hashes=np.arange(NUM_EXAMPLES, dtype=np.uint64),
        record_indices=np.arange(NUM_EXAMPLES, dtype=np.int32),
        receipt=Receipt("toy", 64),
    )
