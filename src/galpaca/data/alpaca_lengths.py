"""Lengths of examples as those of Alpaca's 52,002 are, for estimates where no records are encoded.

Drawn, not counted: from distributions with what is known of Alpaca's records in GALACTICA's tokenizer and the template
``alpaca`` (median 103 tokens, mean 120, 95th percentile 255, 0.2 % beyond 512; 54 % of tokens in answers).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NUM_EXAMPLES = 52_002
_MEDIAN_TOKENS, _SPREAD = 103, 0.55
_SHORTEST_TOKENS, _SHORTEST_PROMPT_TOKENS = 34, 30
_ANSWER_SHARE, _SHARE_SPREAD = 0.555, 0.1


class Lengths(NamedTuple):
    """(N,) each, in the records' order.

    Attributes:
        num_tokens: of each example.
        num_targets: those of them that carry loss, at its end.
    """

    num_tokens: npt.NDArray[np.int64]
    num_targets: npt.NDArray[np.int64]

    def truncated(self, max_length: int) -> "Lengths":
        """As truncation leaves them: the end goes, which is of the answer."""
        kept = np.minimum(self.num_tokens, max_length)
        return Lengths(kept, np.maximum(self.num_targets - (self.num_tokens - kept), 0))


@cache
def alpaca_lengths(num_examples: int = NUM_EXAMPLES) -> Lengths:
    """The same ones each time."""
    generator = np.random.default_rng(0)
    drawn = _MEDIAN_TOKENS * np.exp(_SPREAD * generator.standard_normal(num_examples))
    num_tokens = np.maximum(_SHORTEST_TOKENS, drawn).astype(np.int64)
    shares = _ANSWER_SHARE + _SHARE_SPREAD * generator.standard_normal(num_examples)
    prompts = np.maximum(_SHORTEST_PROMPT_TOKENS, num_tokens * (1 - shares)).astype(np.int64)
    return Lengths(num_tokens, np.maximum(1, num_tokens - prompts))
