"""Counts what happened to the records: everything dropped, truncated or changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Former names of counts, with today's.
_RENAMED = {"cut_answers": "truncated_examples"}


@dataclass
class Receipt:
    """Counts over the records of one encoding; saved with the run.

    Attributes:
        records: read from the source.
        examples: kept for training and validation.
        dropped: reason to number of records.
        truncated_examples: examples longer than ``max_length``.
        lost_target_tokens: target tokens lost to that truncation.
        without_target: examples that keep no target token: the prompt fills the context.
        empty_outputs: records whose output is empty (their only target is ``</s>``).
        duplicates: records with the same content as an earlier one.
        tokens, target_tokens: over the examples.
        longest_tokens: length of the longest example.
        changed_by_normalization: records with characters that the tokenizer rewrites (``x²`` to ``x2``).
        open_sequences: records in which a sequence ends with its field instead of an end tag.
        merged_prompts: examples whose prompt alone has other ids, since the answer's first characters share a token
            with it.
        lost_turns: turns of conversations that were left out because they are over ``max_length``.
        with_split_marker: records whose text contains the split marker, which is lost.
        ignored_columns: unused columns of the source, with the number of records that have them.
    """

    source: str
    max_length: int
    records: int = 0
    examples: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    truncated_examples: int = 0
    lost_target_tokens: int = 0
    without_target: int = 0
    empty_outputs: int = 0
    duplicates: int = 0
    tokens: int = 0
    target_tokens: int = 0
    longest_tokens: int = 0
    changed_by_normalization: int = 0
    with_split_marker: int = 0
    open_sequences: int = 0
    merged_prompts: int = 0
    lost_turns: int = 0
    ignored_columns: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Receipt":
        """A receipt as any version has written it; counts that are no longer made are left out.

        Raises:
            TypeError: it has no source or no length.
        """
        known = {field.name for field in fields(cls)}
        named = {_RENAMED.get(name, name): value for name, value in content.items()}
        return cls(**{name: value for name, value in named.items() if name in known})

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line to show; uninformative zeros are left out."""
        mean = self.tokens / self.examples if self.examples else 0.0
        shown = [
            ("source", self.source),
            ("records", f"{self.records:,}"),
            ("examples", f"{self.examples:,}"),
            *((f"dropped: {reason}", f"{count:,}") for reason, count in sorted(self.dropped.items())),
            ("tokens", f"{self.tokens:,} (mean {mean:.0f}, longest {self.longest_tokens:,})"),
            ("target tokens", f"{self.target_tokens:,}"),
            ("truncated examples", f"{self.truncated_examples:,} (over {self.max_length:,} tokens)"),
            ("target tokens lost to truncation", f"{self.lost_target_tokens:,}"),
            ("examples without a target", f"{self.without_target:,}"),
            ("empty outputs", f"{self.empty_outputs:,}"),
            ("duplicates", f"{self.duplicates:,}"),
            ("changed by normalization", f"{self.changed_by_normalization:,}"),
        ]
        rare = {
            "turns lost to truncation": self.lost_turns,
            "records with a literal split marker": self.with_split_marker,
            "records with an open sequence": self.open_sequences,
            "answers that share a token with their prompt": self.merged_prompts,
        }
        shown += [(label, f"{count:,}") for label, count in rare.items() if count]
        shown += [(f"ignored column {name!r}", f"{count:,}") for name, count in self.ignored_columns.items()]
        return shown
