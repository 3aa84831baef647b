"""Records: turns of an instruction, an input that may be empty, and an output. Alpaca's have one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from galpaca.data.findings import Findings
from galpaca.data.sources.table import Places


class Turn(NamedTuple):
    """A question and its answer."""

    instruction: str
    input: str
    output: str


class Record(NamedTuple):
    """A conversation.

    Attributes:
        turns: at least one. Of a question, the output of the last is empty.
        system: what holds for the whole conversation, ahead of its turns; empty where there is nothing.
    """

    turns: tuple[Turn, ...]
    system: str = ""

    @classmethod
    def of(cls, instruction: str, input: str = "", output: str = "") -> "Record":
        """A record of one turn; without an output, a question."""
        return cls((Turn(instruction, input, output),))

    def alone(self) -> "Record":
        """The last turn, without what is ahead of it."""
        return Record(self.turns[-1:])

    @property
    def num_answer_bytes(self) -> int:
        """UTF-8 bytes of all its answers."""
        return sum(len(turn.output.encode()) for turn in self.turns)

    def texts(self) -> Iterator[str]:
        """All its texts, in order."""
        if self.system:
            yield self.system
        for turn in self.turns:
            yield from turn


@dataclass(frozen=True)
class RecordSet:
    """Checked records and where they came from.

    Attributes:
        source: name of the file or data set.
        places: where each record stands.
        ignored_columns: columns that no field uses, with the number of records that have them.
        findings: what was found when they were read.
        hints: what a column's name suggests, as a configuration key to try.
        columns: of each record, values of further columns that were requested.
        groups: of each record, a hash that it shares with those that must be on one side of a split; None where its
            own content decides.
    """

    source: str
    records: list[Record]
    places: Places
    ignored_columns: dict[str, int]
    findings: Findings = field(default_factory=Findings)
    hints: tuple[str, ...] = ()
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    groups: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def where(self, index: int) -> str:
        return self.places.where(index)
