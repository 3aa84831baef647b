"""What becomes of records that are not as they should be: kept, dropped, or refused."""

from dataclasses import dataclass
from typing import Literal

Policy = Literal["keep", "drop", "error"]


@dataclass(frozen=True)
class EncodingPolicy:
    """What becomes of records that are not as they should be.

    Attributes:
        max_length: examples are truncated to this many tokens.
        on_empty: what to do with records that have an empty output.
        on_empty_instruction: with records that have an empty instruction.
        on_truncation: with records longer than ``max_length``.
        on_special_tokens: with records whose texts have a special token, such as ``</s>``.
        on_control_characters: with records that have control characters.
    """

    max_length: int
    on_empty: Policy = "keep"
    on_empty_instruction: Policy = "keep"
    on_truncation: Policy = "keep"
    on_special_tokens: Policy = "keep"
    on_control_characters: Policy = "keep"
