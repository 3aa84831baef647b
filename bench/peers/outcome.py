"""What one contender did in one repeat."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import known
from galpaca.runs.lines import StepLine
from galpaca.runs.metrics import read_metrics

WARM_UP_STEPS = 1


@dataclass(frozen=True)
class Outcome:
    """Figures of each optimizer step, the warm-up included.

    Attributes:
        step_seconds: from the end of the step before to the step's own end, so loading of data is in it.
        step_examples: examples that went through the model.
        losses: mean over the step's target tokens.
        learning_rates: that the step's update had.
        token_weighted: whether the loss of a step is a mean over its tokens, not a mean of micro-batches' means.
    """

    step_seconds: list[float]
    step_examples: list[int]
    losses: list[float]
    learning_rates: list[float]
    token_weighted: bool = True

    @property
    def examples_per_second(self) -> float:
        return sum(self.step_examples[WARM_UP_STEPS:]) / sum(self.step_seconds[WARM_UP_STEPS:])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_outcome(path: Path) -> Outcome:
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def outcome_of_run(metrics: Path) -> Outcome:
    """Reads ``metrics.jsonl`` of a galpaca run, whose ``step_seconds`` also run from step end to step end."""
    lines = [line for line in read_metrics(metrics) if isinstance(line, StepLine)]
    return Outcome(
        step_seconds=[known(line.step_seconds) for line in lines],
        step_examples=[line.examples for line in lines],
        losses=[known(line.loss) for line in lines],
        learning_rates=[known(line.lr) for line in lines],
    )
