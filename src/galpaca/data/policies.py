"""What becomes of records that do not fit: kept, dropped, or refused."""

from dataclasses import dataclass
from typing import Literal

Policy = Literal["keep", "drop", "error"]


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
