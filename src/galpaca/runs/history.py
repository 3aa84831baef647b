"""Reads the metrics of a run, whether it is running, has ended or was killed in the middle of a line."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from galpaca.runs.lines import SampleLine, StepLine, ValidationLine, parse_metrics_line, parse_sample_line
from galpaca.runs.metrics import whole_lines


@dataclass
class History:
    """The lines of ``metrics.jsonl`` by kind.

    Attributes:
        steps: lines of optimizer steps, in order.
        validations: lines of validations, in order.
        unreadable: number of complete lines that are damaged.
    """

    steps: list[StepLine] = field(default_factory=list)
    validations: list[ValidationLine] = field(default_factory=list)
    unreadable: int = 0

    @property
    def last_step(self) -> int:
        """The last step; 0 before the first."""
        return self.steps[-1].step if self.steps else 0

    def loss_of(self, step: int) -> float | None:
        """Loss of a step; None if it is unknown or not finite."""
        return next((line.loss for line in reversed(self.steps) if line.step == step), None)

    def val_loss_of(self, step: int) -> float | None:
        """Loss of the validation after a step; None if there was none."""
        return next((line.val_loss for line in reversed(self.validations) if line.step == step), None)

    def add(self, text: str) -> None:
        """Parses a complete line of the file."""
        line = parse_metrics_line(text)
        if line is None:
            self.unreadable += 1
        elif isinstance(line, StepLine):
            self.steps.append(line)
        elif isinstance(line, ValidationLine):
            self.validations.append(line)


class Tail:
    """Follows a growing ``metrics.jsonl``; rereads it from the start if lines were removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History()
        self._inode, self._position = 0, 0

    def read(self) -> History:
        """All lines so far; an incomplete last line is left for the next read."""
        try:
            with self.path.open("rb") as file:
                self._read(file)
        except FileNotFoundError:
            self.history, self._inode, self._position = History(), 0, 0
        return self.history

    def _read(self, file: BinaryIO) -> None:
        facts = os.fstat(file.fileno())
        if facts.st_ino != self._inode or facts.st_size < self._position:
            self.history, self._inode, self._position = History(), facts.st_ino, 0
        file.seek(self._position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._position += len(line)
            self.history.add(line.decode("utf-8", "replace"))


def read_history(path: Path) -> History:
    """All complete lines of a ``metrics.jsonl``; none if there is no file."""
    return Tail(path).read()


def read_samples(path: Path) -> Iterator[SampleLine]:
    """The complete lines of ``samples.jsonl``; damaged ones are left out."""
    for text in whole_lines(path):
        line = parse_sample_line(text)
        if line is not None:
            yield line
