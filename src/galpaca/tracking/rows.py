"""Files of a run folder as rows of W&B's history, each with a number by which W&B knows what it has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from galpaca.runs.folder import RunFolder
from galpaca.runs.history import read_samples
from galpaca.runs.lines import (
    CheckpointLine,
    MetricsLine,
    SampleLine,
    StepLine,
    SystemLine,
    ValidationLine,
    figures,
    parse_line,
    parse_metrics_line,
)
from galpaca.runs.tail import LineTail

# Groups are the sections of a W&B workspace, without anybody arranging it.
_GROUPS: Mapping[str, str] = {
    "numerics": "lr grad_norm loss_scale skipped non_finite rolled_back_to spike compiled_graphs",
    "throughput": "tokens_per_second target_tokens_per_second mfu non_padding_fraction",
    "time": "step_seconds val_seconds data_seconds forward_backward_seconds optimizer_seconds",
    "data": "epoch examples tokens target_tokens micro_batches",
}
NAMES: Mapping[str, str] = {
    **{name: f"{group}/{name}" for group, names in _GROUPS.items() for name in names.split()},
    **{"loss": "loss/train", "val_loss": "loss/val", "peak_memory_bytes": "memory/peak_bytes"},
    **{f"checkpoint_{name}": f"checkpoint/{name}" for name in ("stall_seconds", "write_seconds", "bytes")},
}
STEP = "step"
TABLE, ALERT = "samples/answers", "alert"
COLUMNS = ("prompt", "category", "answer", "earlier answers")


@dataclass(frozen=True)
class Stream:
    """Rows made of one file.

    Attributes:
        number: key of a row's number, which grows from row to row.
        place: key of the row's place in W&B's history.
    """

    number: str
    place: str


# The keys "line", "row" and "samples/step" are those of the first runs.
METRICS, SAMPLES = Stream("line", "row"), Stream("samples/step", "samples/row")
SYSTEM = Stream("system/line", "system/row")
STREAMS = (METRICS, SAMPLES, SYSTEM)


class Row(NamedTuple):
    """A row to be; ``values`` are figures by grouped names, rows of a table under ``TABLE``, an alert under
    ``ALERT``."""

    stream: Stream
    number: int
    step: int
    values: dict[str, Any]


class Rows:
    """Reads the rows of a run folder, whether it is growing or complete."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._metrics, self._system = LineTail(folder.metrics), LineTail(folder.system)
        self._last_step = self._samples_read = self._num_system = 0

    def new(self, *, ended: bool) -> Iterator[Row]:
        """Rows that were not there at the last call. A step that is computed again has the number that it had.

        Args:
            ended: nothing more will be written. Until then, answers of the last step may not be complete.
        """
        for text in self._metrics.read():
            line = parse_metrics_line(text)
            if line is not None:
                self._last_step = line.step
                number = line_number(line)
                if number is not None:
                    yield Row(METRICS, number, line.step, named(line))
        yield from self._new_tables(ended)
        yield from self._new_system()

    def _new_tables(self, ended: bool) -> Iterator[Row]:
        facts = self._folder.samples.stat() if self._folder.samples.is_file() else None
        if facts is None or (self._samples_read == facts.st_mtime_ns):
            return
        tables = sample_tables(read_samples(self._folder.samples))
        complete = [(step, table) for step, table in tables if ended or step < self._last_step]
        if len(complete) == len(tables):
            self._samples_read = facts.st_mtime_ns
        for step, table in complete:
            yield Row(SAMPLES, step, step, {TABLE: table})

    def _new_system(self) -> Iterator[Row]:
        texts = self._system.read()
        first = 0 if self._system.restarted else self._num_system
        self._num_system = first + len(texts)
        for number, text in enumerate(texts, start=first):
            line = parse_line(SystemLine, text)
            if line is not None:
                values = {_system_name(key): value for key, value in line.extra.items() if value is not None}
                yield Row(SYSTEM, number, line.step, values | ({ALERT: line.alert} if line.alert else {}))


def sample_tables(lines: Iterable[SampleLine]) -> list[tuple[int, list[list[str]]]]:
    """Step and rows of ``COLUMNS`` of all answers of ``samples.jsonl``, in the order of steps."""
    earlier: dict[str, list[str]] = {}
    tables = []
    for step, answers in groupby(lines, lambda line: line.step):
        table = []
        for line in answers:
            prompt = "\n\n".join(filter(None, (line.instruction, line.input)))
            before = earlier.setdefault(prompt, [])
            table.append([prompt, line.category, line.answer, "\n\n".join(before)])
            before.append(f"step {step}: {line.answer}")
        tables.append((step, table))
    return tables


def named(line: MetricsLine | CheckpointLine) -> dict[str, Any]:
    """A line's figures under grouped names, without its step; what is absent or not finite is left out."""
    return {_grouped(key): value for key, value in figures(line).items()}


def _grouped(key: str) -> str:
    return NAMES.get(key) or (key if "/" in key else f"other/{key}")


def line_number(line: MetricsLine) -> int | None:
    """Number of a line of ``metrics.jsonl``, by its step alone: a validation comes after its step.

    Returns:
        None for a line of a kind that is not sent.
    """
    if isinstance(line, ValidationLine):
        return 4 * line.step + 2
    return 4 * line.step if isinstance(line, StepLine) else None


def is_line(values: Mapping[str, Any]) -> bool:
    """Whether figures under grouped names are those of a line of ``metrics.jsonl``."""
    return NAMES["val_loss"] in values or NAMES["lr"] in values


def _system_name(key: str) -> str:
    return key if "/" in key else f"system/{key}"
