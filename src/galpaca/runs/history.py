"""Reads the metrics of a run, whether it is running, has ended or was killed in the middle of a line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from galpaca.runs.lines import SampleLine, StepLine, ValidationLine, parse_line, parse_metrics_line
from galpaca.runs.metrics import whole_lines
from galpaca.runs.record_fields import FinalFigures
from galpaca.runs.tail import LineTail


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
        self._lines = LineTail(path)

    def read(self) -> History:
        """All lines so far; an incomplete last line is left for the next read."""
        lines = self._lines.read()
        if self._lines.restarted:
            self.history = History()
        for text in lines:
            self.history.add(text)
        return self.history


def read_history(path: Path) -> History:
    """All complete lines of a ``metrics.jsonl``; none if there is no file."""
    return Tail(path).read()


def read_samples(path: Path) -> Iterator[SampleLine]:
    """The complete lines of ``samples.jsonl``; damaged ones are left out."""
    lines = (parse_line(SampleLine, text) for text in whole_lines(path))
    return (line for line in lines if line is not None)


def final_figures(steps: Sequence[StepLine], validations: Sequence[ValidationLine]) -> FinalFigures:
    """Summary metrics of a run over all its starts.

    Args:
        steps: lines of optimizer steps, in order.
        validations: lines of validations, in order.
    """
    seconds = sum(line.step_seconds or 0.0 for line in steps)
    tokens = sum(line.tokens for line in steps)
    return FinalFigures(
        steps=len(steps),
        first_step=steps[0].step if steps and steps[0].step > 1 else None,
        lost_steps=(steps[-1].step - len(steps) or None) if steps else None,
        first_loss=steps[0].loss if steps else None,
        loss=steps[-1].loss if steps else None,
        train_seconds=round(seconds, 2),
        tokens=tokens,
        target_tokens=sum(line.target_tokens for line in steps),
        tokens_per_second=round(tokens / seconds, 1) if seconds else None,
        peak_memory_bytes=max((line.peak_memory_bytes or 0 for line in steps), default=None),
        skipped_steps=sum(bool(line.skipped) for line in steps),
        validations=len(validations),
        val_loss=validations[-1].val_loss if validations else None,
    )
