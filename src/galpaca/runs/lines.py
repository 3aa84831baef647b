"""The lines of ``metrics.jsonl``, ``samples.jsonl`` and ``non_finite.jsonl`` as records."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from galpaca.runs.typed import EXTRA, NULL, decode, encode

Line = TypeVar("Line")


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """One optimizer step; docs/run-folder.md explains each figure.

    Attributes:
        loss, grad_norm: null in the file where they are not finite, or, of a loss, without any target.
        extra: further figures, such as a callback's own.
    """

    step: int
    epoch: float | None = None
    loss: float | None = field(default=None, metadata=NULL)
    lr: float | None = None
    grad_norm: float | None = field(default=None, metadata=NULL)
    examples: int = 0
    tokens: int = 0
    target_tokens: int = 0
    micro_batches: int | None = None
    tokens_per_second: float | None = None
    target_tokens_per_second: float | None = None
    non_padding_fraction: float | None = None
    step_seconds: float | None = None
    data_seconds: float | None = None
    forward_backward_seconds: float | None = None
    optimizer_seconds: float | None = None
    mfu: float | None = None
    peak_memory_bytes: int | None = None
    loss_scale: float | None = None
    compiled_graphs: int | None = None
    spike: bool | None = None
    skipped: bool | None = None
    non_finite: bool | None = None
    rolled_back_to: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def part_seconds(self) -> tuple[float, float, float] | None:
        """Seconds of waiting for data, of forward and backward, and of the update; None unless all are known."""
        data, compute, update = self.data_seconds, self.forward_backward_seconds, self.optimizer_seconds
        return None if data is None or compute is None or update is None else (data, compute, update)


@dataclass(frozen=True, kw_only=True)
class ValidationLine:
    """One validation.

    Attributes:
        extra: further figures, such as losses of single data sets.
    """

    step: int
    val_loss: float | None = field(default=None, metadata=NULL)
    val_seconds: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckpointLine:
    """What a checkpoint cost: for loggers only, since its manifest holds it.

    Attributes:
        checkpoint_stall_seconds: how long training waited for it.
        checkpoint_write_seconds: how long writing took.
    """

    step: int
    checkpoint_bytes: int
    checkpoint_stall_seconds: float
    checkpoint_write_seconds: float


@dataclass(frozen=True, kw_only=True)
class OtherLine:
    """A line of a kind that this version does not know."""

    step: int
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampleLine:
    """An answer during training."""

    step: int
    category: str = ""
    instruction: str = ""
    input: str = ""
    answer: str

    @property
    def question(self) -> tuple[str, str, str]:
        """What identifies its question: category, instruction and input."""
        return self.category, self.instruction, self.input


@dataclass(frozen=True, kw_only=True)
class NonFiniteFinding:
    """Where a rank's numbers were not finite first.

    Attributes:
        module: the first whose output was not; ``the loss`` where all outputs were.
        examples: record numbers of its micro-batch.
    """

    rank: int
    micro_batch: int
    module: str
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NonFiniteLine:
    """A step whose loss or gradient was not finite.

    Attributes:
        policy: what was done: ``stop``, ``skip`` or ``rollback``.
        examples: record numbers of the whole step.
    """

    step: int
    policy: str
    found: tuple[NonFiniteFinding, ...] = ()
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A message to those who enabled alerts at W&B."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SystemLine:
    """The machine at one moment of a run, or what else no other file records.

    Attributes:
        time: seconds since 1970.
        step: the run's last step then.
        extra: figures by name.
    """

    time: float = 0.0
    step: int = 0
    alert: Alert | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


MetricsLine = StepLine | ValidationLine | OtherLine
AnyLine = MetricsLine | CheckpointLine | SampleLine | NonFiniteLine | SystemLine


def to_text(line: AnyLine) -> str:
    """The line as JSON, without a line break; what is not finite is null."""
    return json.dumps(encode(line), ensure_ascii=False)


def parse_metrics_line(text: str) -> MetricsLine | None:
    """A line of ``metrics.jsonl``; None if it is damaged: no JSON object with a step, or a figure of another type."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            return None
        if "loss" in content:
            return decode(StepLine, content)
        return decode(ValidationLine, content) if "val_loss" in content else decode(OtherLine, content)
    except ValueError:
        return None


def parse_line(kind: type[Line], text: str) -> Line | None:
    """A line of a file that has lines of one kind only; None if it is damaged, as a kill may leave it."""
    try:
        return decode(kind, json.loads(text))
    except ValueError:
        return None


def figures(line: MetricsLine | CheckpointLine) -> dict[str, Any]:
    """Every figure of a line by its name, without the step; those that are absent or not finite are left out."""
    content = encode(line)
    return {name: value for name, value in content.items() if name not in ("step", EXTRA) and value is not None}
