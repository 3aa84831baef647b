"""What becomes of a line of ``metrics.jsonl`` in a logger, and which lines a logger has had already."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Groups are the sections of a W&B workspace, without anybody arranging it.
NAMES: Mapping[str, str] = {
    "loss": "loss/train",
    "val_loss": "loss/val",
    "lr": "numerics/lr",
    "grad_norm": "numerics/grad_norm",
    "loss_scale": "numerics/loss_scale",
    "skipped": "numerics/skipped",
    "non_finite": "numerics/non_finite",
    "rolled_back_to": "numerics/rolled_back_to",
    "spike": "numerics/spike",
    "tokens_per_second": "throughput/tokens_per_second",
    "target_tokens_per_second": "throughput/target_tokens_per_second",
    "mfu": "throughput/mfu",
    "non_padding_fraction": "throughput/non_padding_fraction",
    "step_seconds": "time/step_seconds",
    "val_seconds": "time/val_seconds",
    "data_seconds": "time/data_seconds",
    "forward_backward_seconds": "time/forward_backward_seconds",
    "optimizer_seconds": "time/optimizer_seconds",
    "peak_memory_bytes": "memory/peak_bytes",
    "checkpoint_stall_seconds": "checkpoint/stall_seconds",
    "checkpoint_write_seconds": "checkpoint/write_seconds",
    "checkpoint_bytes": "checkpoint/bytes",
    "compiled_graphs": "numerics/compiled_graphs",
    "epoch": "data/epoch",
    "examples": "data/examples",
    "tokens": "data/tokens",
    "target_tokens": "data/target_tokens",
    "micro_batches": "data/micro_batches",
}
# Of a W&B row: its step, and its place among all rows of a run.
STEP, LINE = "step", "line"


def named(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line's figures under grouped names, without its step; a figure that is none is left out."""
    return {_named(key): value for key, value in line.items() if key != "step" and value is not None}


def _named(key: str) -> str:
    return NAMES.get(key) or (key if "/" in key else f"other/{key}")


def row(figures: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A row of W&B's history. What is not finite is left out, as it is ``null`` in ``metrics.jsonl``."""
    finite = {
        key: value for key, value in figures.items() if not (isinstance(value, float) and not math.isfinite(value))
    }
    place = line_number(figures, step)
    return {**finite, STEP: step, **({} if place is None else {LINE: place})}


def line_number(figures: Mapping[str, Any], step: int) -> int | None:
    """A line's place among all lines of a run, by its step alone: a validation comes after its step.

    Even: rows that are no lines have the odd places after the line before them.

    Returns:
        None for figures that are no line of ``metrics.jsonl``.
    """
    if NAMES["val_loss"] in figures:
        return 4 * step + 2
    # A step without any target has no loss, yet it has a learning rate.
    return 4 * step if NAMES["lr"] in figures else None


def is_line(place: int) -> bool:
    return place % 2 == 0


class Sent:
    """Numbers of the lines that W&B has, or will have from a local file.

    Args:
        up_to: it has every line up to this place.
        others: and these.

    Attributes:
        last: the last line's; -2 before any.
    """

    def __init__(self, up_to: int = -1, others: Iterable[int] = ()) -> None:
        self._up_to, self._others = up_to, set(others)
        self.last = max([up_to // 2 * 2, *self._others])

    def __contains__(self, number: int) -> bool:
        return number <= self._up_to or number in self._others

    def add(self, number: int) -> None:
        self._others.add(number)
        self.last = max(self.last, number)

    def missing(self, lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of those lines of ``metrics.jsonl`` that W&B does not have, in order."""
        rows = (row(named(line), line["step"]) for line in lines)
        return [one for one in rows if LINE in one and one[LINE] not in self]
