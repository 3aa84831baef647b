"""What is found in records: of each kind, how many records have it, and which is the first."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Findings:
    """Counts over records, by name.

    Attributes:
        first: index of the first record of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, index: int) -> None:
        self.counts[name] += 1
        self.first.setdefault(name, index)
